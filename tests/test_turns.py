"""Requests that wait for their turn: deadlines, a full queue, a server that stops."""

import concurrent.futures
import contextlib
import http.client
import json
import threading
import time

import grpc
import pytest
from serving_calls import (
    GOOD,
    OK,
    behind_gate,
    caller,
    loaded,
    ours,
    predict,
    status,
)
from waiting import wait_for

from keras_parti.serving import json_tensors
from keras_parti.serving.server import Server

pytestmark = ours


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
        gate = behind_gate(loaded(server))
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            answers = [pool.submit(call, "Predict", predict(GOOD)) for _ in range(5)]
            time.sleep(0.5)
            gate.set()
            codes = [answer.result()[0] for answer in answers]
    assert sorted(codes.count(code) for code in set(codes)) == [2, 3]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3


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
        call, gate = caller(server.address), behind_gate(loaded(server))
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
        gate = behind_gate(loaded(server))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, server)
            wait_for(lambda: server._running[3].load == (0, 1))
            words = "The request waited 0.3 s for its turn: the server is busy."
            assert post(server) == (504, {"error": words})
            gate.set()
            assert first.result()[0] == 200
        assert post(server)[0] == 200
