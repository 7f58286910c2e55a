"""What goes wrong around a server: nothing is lost, and nothing hangs."""

import concurrent.futures
import contextlib
import os
import shutil
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from full_disk import files_of_at_most
from server_process import ServerProcess
from serving_calls import metrics, predict
from small_chain import PROMPTS, columns
from tensorflow_serving.apis import prediction_service_pb2_grpc
from waiting import wait_for

from keras_parti.serving.client import Client
from keras_parti.serving.export import export

pytestmark = pytest.mark.slow

GOOD = {"signature_name": "generate", "inputs": {"prompt": ["a"], "seed": [3]}}


@pytest.fixture(scope="module")
def model(exported, tmp_path_factory):
    """A model's folder that tests may add versions to."""
    folder = tmp_path_factory.mktemp("faults") / "toy"
    shutil.copytree(exported, folder / "1")
    return folder


@pytest.fixture(scope="module")
def server(model):
    server = ServerProcess(model, model.parent / "log")
    yield server
    server.stop()


@pytest.fixture
def healthy(server):
    """Holds the server, after a test, to the answers of before, on both ports."""
    with Client(server.address, model="toy", timeout=60) as client:
        before = client.generate(["a"], seed=3, num_samples=1)["ids"].tolist()
        status, document = server.rest("POST", "/v1/models/toy:predict", GOOD)
        assert (status, document["outputs"]["ids"]) == (200, before[0])
        yield client
        assert server.process.poll() is None
        assert client.generate(["a"], seed=3, num_samples=1)["ids"].tolist() == before
        answer = server.rest("POST", "/v1/models/toy:predict", GOOD)
        assert answer == (status, document)


def test_a_server_that_is_killed_and_restarted_loses_no_request(model, tmp_path):
    server = ServerProcess(model, tmp_path / "log")
    asked, lock = [], threading.Lock()

    def ask(number):
        with lock:
            asked.append(number)
        with Client(server.address, "toy", timeout=300, retries=1000) as client:
            return client.generate(PROMPTS, seed=number, num_samples=1)["ids"]

    expected = [ask(number) for number in range(5)]
    asked.clear()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number % 5) for number in range(200)]
        while len(asked) < 40:
            time.sleep(0.001)
        server.kill()  # eight requests are on their way
        assert sum(answer.done() for answer in answers) < 150
        server = ServerProcess(model, tmp_path / "log", server.port, server.rest_port)
        for number, answer in enumerate(answers):
            np.testing.assert_array_equal(answer.result(), expected[number % 5])
    server.stop()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda v: (v / "saved_model.pb").unlink(), "saved_model.pb"),
        (lambda v: os.truncate(v / "saved_model.pb", 1000), "saved_model.pb"),
        (lambda v: shutil.rmtree(v / "variables"), "variables"),
        (lambda v: [f.unlink() for f in v.rglob("*") if f.is_file()], "saved_model.pb"),
    ],
    ids=["without graph", "half a graph", "without variables", "empty"],
)
def test_a_corrupt_new_version_leaves_the_old_one_at_work(
    model, healthy, tmp_path, damage, reason
):
    stop, number = threading.Event(), 2
    shutil.copytree(model / "1", tmp_path / "2")
    damage(tmp_path / "2")

    def ask():
        count = 0
        while not stop.is_set():
            healthy.generate(["a"], seed=3, num_samples=1)
            count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        os.rename(tmp_path / "2", model / "2")
        try:
            wait_for(lambda: reason in healthy.status().get(number, ""))
            state = healthy.status()
            assert state[1] == "AVAILABLE"
            assert not state[number].startswith("AVAILABLE")
        finally:
            stop.set()
            shutil.rmtree(model / "2")
        assert asking.result() > 0


@pytest.mark.parametrize("share", [0.0, 0.9], ids=["at once", "in the last of it"])
def test_a_full_disk_leaves_no_half_version(
    small_chain, exported, tmp_path, monkeypatch, share
):
    # Whoever writes temporary files writes them to the same full disk.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "toy").mkdir()
    shutil.copytree(exported, tmp_path / "toy" / "1")
    largest = max(f.stat().st_size for f in exported.rglob("*") if f.is_file())
    with (
        files_of_at_most(int(largest * share)),
        pytest.raises(OSError, match="toy") as error,
    ):
        export(small_chain, tmp_path / "toy", 7, 3)
    assert "cannot be written" in str(error.value) or error.value.errno
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["1"]


def test_clients_that_leave_in_mid_sampling_leave_no_work_behind(server, healthy):
    """A run at work is finished; of those that wait none is begun."""
    request = predict(columns(["a"] * 16), name="toy", signature="generate_best")
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        calls = [stub.Predict.future(request, timeout=300) for _ in range(60)]
        wait_for(lambda: metrics(server)["keras_parti_requests_waiting"] > 29)
        before = metrics(server)
        for call in calls:
            call.cancel()
    wait_for(lambda: idle(metrics(server)))
    for _ in range(20):
        with server.connect(server.rest_port) as leaving:
            body = b'{"signature_name": "generate_best", "inputs": {"prompt": ["a"]}}'
            leaving.sendall(post(len(body)) + body)
    healthy.generate(["a"], num_samples=1)
    wait_for(lambda: idle(metrics(server)))
    after = metrics(server)
    # Sixteen rows fill a run, so those that waited would have been thirty and more.
    assert after["keras_parti_runs"] - before["keras_parti_runs"] < 25
    count = ':tensorflow:serving:request_count{model_name="toy",status="CANCELLED"}'
    assert after[count] > 25


def idle(counted):
    """Whether nothing waits and nothing is at work."""
    names = ("keras_parti_requests_waiting", "keras_parti_requests_at_work")
    return not any(counted[name] for name in names)


def post(length, path="/v1/models/toy:predict"):
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RANDOM = np.random.default_rng(7)
GARBAGE = {
    "nothing": b"",
    "zeros": bytes(100_000),
    "chance": RANDOM.bytes(100_000),
    "TLS": bytes.fromhex("160301020001000" + "1fc0303") + RANDOM.bytes(500),
    "HTTP/1 without end": b"GET / HTTP/1.1\r\nHost: " + b"a" * 100_000,
    "HTTP/1 of another port": b"GET /v1/models/toy HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 and chance": PREFACE + RANDOM.bytes(10_000),
    "HTTP/2 with a frame too long": PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "HTTP/2 of settings alone": PREFACE + bytes.fromhex("000000040000000000") * 9_000,
    "a length that is none": post("99999999999999999999999"),
    "a negative length": post(-5) + b"{}",
    "two lengths": post("2\r\nContent-Length: 9") + b"{}",
    "a body that is too short": post(100) + b"{",
    "chunks of garbage": b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + RANDOM.bytes(100),
    "lines without end": b"\r\n" * 50_000,
    "many heads": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_on_either_port_is_dropped(server, healthy, kind):
    for port in (server.port, server.rest_port):
        with server.connect(port) as connection:
            try:
                connection.sendall(GARBAGE[kind])
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
            except TimeoutError:
                raise
            except OSError:  # closed before the end of it
                pass


def test_half_open_connections_are_borne(server, healthy):
    """Neither those that say nothing nor those that stop midway keep others out."""
    with contextlib.ExitStack() as stack:
        for number in range(200):
            for port in (server.port, server.rest_port):
                connection = stack.enter_context(server.connect(port))
                if number % 2:
                    head = PREFACE if port == server.port else post(1000)
                    connection.sendall(head[: 10 + number % 9 * 8])
        for _ in range(3):
            healthy.generate(PROMPTS, num_samples=1)
            assert server.rest("GET", "/v1/models/toy")[0] == 200
