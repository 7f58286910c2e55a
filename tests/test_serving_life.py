"""A server in the course of its life: new versions, watchers, abuse, and its end."""

import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving_calls import (
    GOOD,
    NOT_FOUND,
    OK,
    caller,
    columns_of,
    copy,
    metrics,
    ours,
    predict,
    status,
)
from tensorflow_serving.apis import model_management_pb2
from waiting import wait_for

from keras_parti.serving.server import Server

pytestmark = ours


def appear(source, target):
    """Makes a version appear in one step, as an export does."""
    aside = target.with_name(f".writing-{target.name}")
    shutil.copytree(source, aside)
    os.rename(aside, target)


def test_no_request_fails_while_versions_come_and_go(stand_ins, tmp_path):
    model = copy(stand_ins, tmp_path, [1])
    done = threading.Event()

    def client(seed):
        answers = []
        while not done.is_set():
            inputs = {**GOOD, "seed": np.int32(seed)}
            code, reply = call("Predict", predict(inputs, output_filter=["png"]))
            assert code == OK, reply
            answers.append((reply.model_spec.version.value, reply.outputs["png"]))
        return answers

    with (
        Server(model, port=0) as server,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        call = caller(server.address)
        clients = [pool.submit(client, seed) for seed in range(4)]
        try:
            for number in (2, 3):
                appear(model / "1", model / str(number))
                wait_for(lambda number=number: server.version == number)
            shutil.rmtree(model / "2")
            (model / "4").mkdir()  # half of a version
            (model / "4" / "saved_model.pb").write_bytes(b"\xff half")
            wait_for(lambda: len(states(call)) == 4)
        finally:
            done.set()
        found = states(call)
        answers = [c.result() for c in clients]
    assert [entry.state for entry in found] == [50, 30, 50, 50]  # END, AVAILABLE
    assert "saved_model.pb cannot be read" in found[0].status.error_message
    for own in answers:
        versions = [version for version, _ in own]
        assert versions == sorted(versions)
        assert len({png.SerializeToString() for _, png in own}) == 1


def states(call):
    """The entries of the status, the newest version first."""
    return list(call("GetModelStatus", status())[1].model_version_status)


def test_models_are_changed_by_request_and_read_from_a_file(stand_ins, tmp_path):
    config = tmp_path / "models.config"
    text = 'model_config_list {{ config {{ name: "{0}" base_path: "{1}/{0}" }} }}'
    config.write_text(text.format("toy", stand_ins))
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text.format("parti", stand_ins), request.config)
    with Server(config=config, port=0) as server:
        call = caller(server.address)
        draw = predict(columns_of(["a"]), name="toy")
        assert call("Predict", draw)[0] == OK
        code, reply = call("HandleReloadConfigRequest", request)
        assert (code, reply.status.error_code) == (OK, 0)
        assert call("Predict", predict(GOOD))[0] == OK
        assert call("Predict", draw)[0] == NOT_FOUND
        wrong = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(text.format("nowhere", stand_ins), wrong.config)
        code, words = call("HandleReloadConfigRequest", wrong)
        assert code == NOT_FOUND
        assert "No model folder" in words
        assert call("Predict", predict(GOOD))[0] == OK


@pytest.fixture(scope="module")
def server(stand_ins):
    with Server(stand_ins / "parti", port=0, rest_port=0) as server:
        yield server


def test_health_is_told_to_those_who_watch(stand_ins):
    with (
        Server(stand_ins / "parti", port=0) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tensorflow.serving.PredictionService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        watched = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        stopping = threading.Thread(target=server.stop, args=[1.0])
        stopping.start()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        stopping.join()


def test_services_are_found_by_reflection(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (reply,) = stub.ServerReflectionInfo(iter([request]))
    names = {service.name for service in reply.list_services_response.service}
    assert names == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_metrics_count_requests_by_status(stand_ins):
    with Server(stand_ins / "parti", port=0, rest_port=0) as server:
        call = caller(server.address)
        for _ in range(3):
            call("Predict", predict(GOOD))
        call("Predict", predict(GOOD, signature="foo"))
        for name in ("nope", 'a"b'):  # counted together: names take memory
            call("Predict", predict(GOOD, name=name))
        text = metrics(server)
    name = ":tensorflow:serving:request_count"
    assert text[f'{name}{{model_name="parti",status="OK"}}'] == 3
    assert text[f'{name}{{model_name="parti",status="FAILED_PRECONDITION"}}'] == 1
    assert text[f'{name}{{model_name="",status="NOT_FOUND"}}'] == 2
    labels = 'model_name="parti",API="predict",entrypoint="GRPC"'
    name = ":tensorflow:serving:request_latency"
    assert text[f"{name}_count{{{labels}}}"] == 4
    buckets = [v for k, v in text.items() if k.startswith(f"{name}_bucket{{{labels}")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 4
    assert text["keras_parti_requests_waiting"] == 0
    assert text["keras_parti_runs_requests"] == 3
    assert text["process_resident_memory_bytes"] > 1e7


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 9999,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff",
    ],
)
def test_garbage_on_the_port_hurts_nobody(server, garbage):
    call = caller(server.address)
    connections = []
    for _ in range(20):
        connections.append(socket.create_connection(("127.0.0.1", server.port)))
        connections[-1].sendall(garbage)
    assert call("Predict", predict(GOOD))[0] == OK
    for connection in connections:
        connection.close()
    assert call("Predict", predict(GOOD))[0] == OK


class Spinner(tf.Module):
    """Counts up to what it is asked for, 1,000,000 in about a second."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "steps")])
    def spin(self, steps):
        most = tf.reduce_max(steps)
        last = tf.while_loop(lambda i: i < most, lambda i: [i + 1], [0])[0]
        return {"last": last + 0 * steps}


@pytest.fixture(scope="module")
def spinner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spinner") / "spinner"
    module = Spinner()
    signatures = {"serving_default": module.spin}
    tf.saved_model.save(module, str(folder / "1"), signatures)
    return folder


def spin(steps):
    return predict({"steps": np.array([steps], np.int32)}, name="spinner")


def test_a_run_without_end_does_not_hold_up_the_end(spinner):
    server = Server(spinner, port=0).start()
    call = caller(server.address)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        endless = pool.submit(call, "Predict", spin(2**31 - 1), 600)
        (model,) = server.models
        wait_for(lambda: model._versions[1].users)
        begun = time.monotonic()
        server.stop(grace=0.5)
        assert time.monotonic() - begun < 30
        assert endless.result()[0] in (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNAVAILABLE,
        )


@pytest.mark.slow
def test_what_is_at_work_is_answered_after_sigterm(spinner):
    script = (
        "import sys\n"
        "from keras_parti.serving.server import Server\n"
        "with Server(sys.argv[1], port=0) as server:\n"
        "    print(server.port, flush=True)\n"
        "    server.wait()\n"
        "print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(spinner)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    call = caller(f"127.0.0.1:{process.stdout.readline().strip()}")
    assert call("Predict", spin(3))[0] == OK
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(call, "Predict", spin(10**6), 60) for _ in range(3)]
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        found = [answer.result() for answer in answers]
    assert [code for code, _ in found] == [OK] * 3
    assert [tf.make_ndarray(reply.outputs["last"]) for _, reply in found] == [10**6] * 3
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert process.returncode == 0


@pytest.mark.slow
def test_serve_says_what_it_does_until_it_is_terminated(exported, tmp_path):
    model = tmp_path / "toy"
    shutil.copytree(exported, model / "1")
    command = [sys.executable, "-m", "keras_parti", "serve", model, "--port", "0"]
    command += ["--rest-port", "0", "--page"]
    names = ["serving_default", "generate", "generate_best", "encode", "decode"]
    warming = [f"Warming up {n} ({i} of 5) ..." for i, n in enumerate(names, 1)]
    swap = ["Version 2 of toy found: loading and warming up ...", *warming]
    swap += ["Serving toy, version 2.", "Version 1 of toy has ended."]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("Loading")
        assert process.stdout.readline() == "Serving toy, version 1.\n"
        assert "REST: http://127.0.0.1:" in process.stdout.readline()
        assert process.stdout.readline().startswith("Page: http://127.0.0.1:")
        assert "keras-parti generate" in process.stdout.readline()
        logged = [process.stderr.readline() for _ in warming]
        appear(exported, model / "2")
        logged += [process.stderr.readline() for _ in swap]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert logged == [f"keras-parti: {words}\n" for words in (*warming, *swap)]
    assert (process.returncode, out, err) == (0, "Stopped.\n", "")
