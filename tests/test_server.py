"""The embedded server as a program: ports, limits, queues and how it ends."""

import concurrent.futures
import contextlib
import http.client
import json
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
from serving_calls import GOOD, OK, caller, copy, loaded, ours, predict, status

from keras_parti.serving import json_tensors
from keras_parti.serving.server import Server

pytestmark = ours


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_message_above_the_limit_is_refused(stand_ins):
    with Server(stand_ins / "parti", port=0, max_message_bytes=100_000) as server:
        call = caller(server.address)
        image = np.zeros((11, 64, 64, 3), np.float32)
        code, message = call("Predict", predict({"image": image}, signature="encode"))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "100000" in message
        assert call("Predict", predict(GOOD))[0] == OK


def test_work_past_its_deadline_is_not_started(stand_ins):
    with Server(stand_ins / "parti", port=0, threads=1) as server:
        call = caller(server.address)
        servable = loaded(server)
        runs, slow = [], servable.call

        def call_slowly(*arguments):
            runs.append(arguments)
            time.sleep(0.5)
            return slow(*arguments)

        servable.call = call_slowly
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            first = pool.submit(call, "Predict", predict(GOOD))
            time.sleep(0.1)
            late = [pool.submit(call, "Predict", predict(GOOD), 0.2) for _ in range(2)]
            codes = [answer.result()[0] for answer in late]
        assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
        assert first.result()[0] == OK
        assert call("Predict", predict(GOOD))[0] == OK
        assert len(runs) == 2


def test_queue_is_bounded(stand_ins):
    with Server(stand_ins / "parti", port=0, threads=1, queue=1) as server:
        call = caller(server.address)
        gate, servable = threading.Event(), loaded(server)
        call_now = servable.call

        def call_behind_gate(*arguments):
            assert gate.wait(20)
            return call_now(*arguments)

        servable.call = call_behind_gate
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            answers = [pool.submit(call, "Predict", predict(GOOD)) for _ in range(5)]
            time.sleep(0.5)
            gate.set()
            codes = [answer.result()[0] for answer in answers]
    assert sorted(codes.count(code) for code in set(codes)) == [2, 3]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3


def test_unexpected_failure_is_an_answer_too(stand_ins, caplog):
    with Server(stand_ins / "parti", port=0) as server:
        call = caller(server.address)
        loaded(server).signatures["serving_default"] = None
        code, message = call("Predict", predict(GOOD))
        assert code == grpc.StatusCode.INTERNAL
        assert message.startswith("AttributeError")
        assert call("GetModelStatus", status())[0] == OK


def test_newest_version_by_number_is_served(stand_ins, tmp_path):
    model = copy(stand_ins, tmp_path, [9, 10, "11.tmp"])
    with Server(model, port=0) as server:
        assert server.version == 10
        assert caller(server.address)("GetModelStatus", status())[0] == OK


def test_missing_folders_are_named(stand_ins, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No model folder .*nowhere"):
        Server(tmp_path / "nowhere", port=0).start()
    with pytest.raises(FileNotFoundError, match="holds no version folders"):
        Server(tmp_path, port=0).start()
    with pytest.raises(FileNotFoundError, match=f"give {stand_ins / 'parti'}"):
        Server(stand_ins / "parti" / "2", port=0).start()


def test_port_in_use_is_said_at_once(stand_ins, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # Before the model is looked for: that may take long.
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1: it is in use"):
            Server(tmp_path / "nowhere", port=port).start()
    with Server(stand_ins / "parti", port=0) as first:
        assert first.port > 0
        with pytest.raises(OSError, match="it is in use"):
            Server(stand_ins / "parti", port=first.port).start()
        # Nor may another program share the port, if it asks for that.
        with socket.socket() as sharing:
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                sharing.bind(("127.0.0.1", first.port))
    with Server(stand_ins / "parti", port=first.port) as again:
        assert again.port == first.port
    with pytest.raises(ValueError, match=r"port must lie in \[0, 65535\].*: 70000"):
        Server(stand_ins / "parti", port=70000)


def listens(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_only_loopback_listens_unless_told(stand_ins):
    with Server(stand_ins / "parti", port=0) as server:
        assert listens("127.0.0.1", server.port)
        # All of 127/8 is loopback; a socket on any address would answer here too.
        assert not listens("127.0.0.2", server.port)
    with Server(stand_ins / "parti", host="0.0.0.0", port=0) as server:
        assert listens("127.0.0.2", server.port)


def test_stop_lets_work_finish_and_then_refuses(stand_ins):
    server = Server(stand_ins / "parti", port=0).start()
    call = caller(server.address)
    servable = loaded(server)
    call_now, begun = servable.call, threading.Event()

    def call_slowly(*arguments):
        begun.set()
        time.sleep(0.5)
        return call_now(*arguments)

    servable.call = call_slowly
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, "Predict", predict(GOOD))
        assert begun.wait(30)
        server.stop(grace=30)
        assert answer.result()[0] == OK
    assert call("Predict", predict(GOOD), 5)[0] == grpc.StatusCode.UNAVAILABLE
    server.stop()


def post(server, timeout=60):
    """The status and the document of a good request over REST."""
    inputs = {"text": ["a"], "seed": 3, "temperature": 0.5}
    connection = http.client.HTTPConnection(server.rest_address, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(
            "POST", "/v1/models/parti:predict", json.dumps({"inputs": inputs})
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_stop_answers_all_that_came_in_before_it(stand_ins, monkeypatch):
    """What waits, what runs, and what is still being read; over both ports."""
    read, read_now = threading.Event(), json_tensors.read_inputs

    def read_slowly(*arguments):
        assert read.wait(30)
        return read_now(*arguments)

    ports = {"port": 0, "rest_port": 0}
    with Server(stand_ins / "parti", threads=1, batch_rows=0, **ports) as server:
        call, servable = caller(server.address), loaded(server)
        gate, call_now = threading.Event(), servable.call

        def call_behind_gate(*arguments):
            assert gate.wait(30)
            return call_now(*arguments)

        servable.call = call_behind_gate
        scheduler = server._running[3]
        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            early = [pool.submit(post, server) for _ in range(3)]
            calls = [pool.submit(call, "Predict", predict(GOOD)) for _ in range(3)]
            wait_for(lambda: scheduler.load == (5, 1))
            monkeypatch.setattr(json_tensors, "read_inputs", read_slowly)
            reading = pool.submit(post, server)
            wait_for(lambda: server._running[2].at_work == 4)
            stopping = pool.submit(server.stop, 30)
            wait_for(lambda: call("GetModelStatus", status(), 5)[0] != OK)
            read.set()
            wait_for(lambda: scheduler.load == (6, 1))
            gate.set()
            assert [answer.result()[0] for answer in calls] == [OK] * 3
            assert [answer.result()[0] for answer in (*early, reading)] == [200] * 4
            stopping.result()
        with pytest.raises(ConnectionRefusedError):
            post(server)


def test_what_does_not_end_in_time_is_told_to_go_elsewhere(stand_ins):
    with Server(stand_ins / "parti", port=0, rest_port=0) as server:
        gate, servable = threading.Event(), loaded(server)
        servable.call = lambda *arguments: gate.wait(30)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(post, server)
            wait_for(lambda: server._running[3].load == (0, 1))
            server.stop(grace=0.1)
            assert stuck.result() == (503, {"error": "The server stops."})
        gate.set()


def test_over_rest_a_turn_is_waited_for_so_long(stand_ins):
    with Server(
        stand_ins / "parti", port=0, rest_port=0, threads=1, rest_timeout=0.3
    ) as server:
        gate, servable = threading.Event(), loaded(server)
        call_now = servable.call

        def call_behind_gate(*arguments):
            assert gate.wait(30)
            return call_now(*arguments)

        servable.call = call_behind_gate
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, server)
            wait_for(lambda: server._running[3].load == (0, 1))
            words = "The request waited 0.3 s for its turn: the server is busy."
            assert post(server) == (504, {"error": words})
            gate.set()
            assert first.result()[0] == 200
        assert post(server)[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_wait_ends_gracefully_on_a_signal(stand_ins, number):
    # A shell starts what it puts in the background with SIGINT ignored, and its
    # children inherit that.
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_parti.serving.server import Server\n"
        "with Server(sys.argv[1], port=0) as server:\n"
        "    print(server.port, flush=True)\n"
        "    server.wait()\n"
        "print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(stand_ins / "parti")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    port = process.stdout.readline().strip()
    assert caller(f"127.0.0.1:{port}")("Predict", predict(GOOD))[0] == OK
    time.sleep(0.3)  # from ready to waiting
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == "stopped\n"
    assert process.returncode == 0
