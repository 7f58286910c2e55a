"""REST as the real server was seen to speak it, and what a bad client may do to it."""

import base64
import http.client
import json
import socket
import threading
import time

import numpy as np
import pytest
from serving_calls import INVALID, caller, columns_of, ours, predict

from keras_parti.serving.http_server import HttpServer
from keras_parti.serving.server import Server, listening

pytestmark = ours


@pytest.fixture(scope="module")
def server(stand_ins):
    with Server(stand_ins / "parti", port=0, rest_port=0) as server:
        yield server


@pytest.fixture(scope="module")
def toy(stand_ins):
    with Server(stand_ins / "toy", port=0, rest_port=0, page=True) as server:
        yield server


def ask(server, path, body=None, method=None):
    """Status, content type and body of an answer; JSON is read."""
    method = method or ("GET" if body is None else "POST")
    if isinstance(body, dict):
        body = json.dumps(body)
    connection = http.client.HTTPConnection(server.rest_address, timeout=60)
    connection.request(method, path, body)
    response = connection.getresponse()
    content, kind = response.read(), response.headers["Content-Type"]
    connection.close()
    if kind == "application/json":
        content = json.loads(content)
    return response.status, kind, content


IMAGE = np.zeros((1, 16, 16, 3)).tolist()
CODES = [[0] * 4] * 4
TEXT = {"text": ["a"], "seed": 3, "temperature": 0.5}
VERSION_2 = {
    "model_version_status": [
        {
            "version": "2",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
}
RECORDED = {
    "status": ("parti", None, 200, VERSION_2),
    "status of a version": ("parti/versions/2", None, 200, VERSION_2),
    "status of no model": (
        "nope",
        None,
        404,
        {"error": "Could not find any versions of model nope"},
    ),
    "rows": (
        "parti/versions/2:predict",
        {"signature_name": "encode", "instances": IMAGE},
        200,
        {"predictions": [CODES]},
    ),
    "columns": (
        "parti:predict",
        {"signature_name": "encode", "inputs": IMAGE},
        200,
        {"outputs": [CODES]},
    ),
    "no JSON": (
        "parti:predict",
        "{not json",
        400,
        {"error": "JSON Parse error: Missing a name for object member. at offset: 1"},
    ),
    "signature": (
        "parti:predict",
        {"signature_name": "zz", "inputs": IMAGE},
        400,
        {"error": 'Serving signature name: "zz" not found in signature def'},
    ),
    "model": (
        "nope:predict",
        {"inputs": IMAGE},
        404,
        {"error": "Servable not found for request: Latest(nope)"},
    ),
    "no key": (
        "parti:predict",
        {},
        400,
        {"error": "Missing 'inputs' or 'instances' key"},
    ),
    "action": (
        "parti:foo",
        {},
        400,
        {"error": "Malformed request: POST /v1/models/parti:foo"},
    ),
    "label": (
        "parti/labels/stable:predict",
        {"inputs": TEXT},
        400,
        {"error": "Unrecognized servable version label: stable"},
    ),
    "version": (
        "parti/versions/9:predict",
        {"inputs": TEXT},
        404,
        {"error": "Servable not found for request: Specific(parti, 9)"},
    ),
    "huge version": (
        f"parti/versions/{10**20}:predict",
        {"inputs": TEXT},
        400,
        {"error": f"Failed to convert version: {10**20} to numeric."},
    ),
    "classify": (
        "parti:classify",
        {"examples": [{}]},
        400,
        {"error": "Expected one input Tensor."},
    ),
    "regress": (
        "parti:regress",
        {"examples": [{}]},
        400,
        {"error": "Expected one input Tensor."},
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_rest_answers_as_the_real_server(server, case):
    path, body, status, answer = RECORDED[case]
    kind = "application/json"
    assert ask(server, f"/v1/models/{path}", body) == (status, kind, answer)


@pytest.mark.parametrize("path", ["/", "/v2/models/parti", "/monitoring"])
def test_other_paths_are_lost(server, path):
    status, kind, content = ask(server, path)
    assert (status, kind) == (404, "text/html")
    assert b"<H1>Not Found</H1>" in content


def test_metadata_describes_every_signature(server):
    status, _, found = ask(server, "/v1/models/parti/metadata")
    assert status == 200
    spec = {"name": "parti", "version": "2", "signature_name": ""}
    assert found["model_spec"] == spec
    signatures = found["metadata"]["signature_def"]["signature_def"]
    text = signatures["serving_default"]["inputs"]["text"]
    assert text == {
        "name": "serving_default_text:0",
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }


def test_rest_and_grpc_give_the_same_pictures(toy):
    full = columns_of(["a fox", "狐"], seed=5)
    reply = caller(toy.address)("Predict", predict(full, name="toy"))[1]
    files = [
        base64.b64encode(f).decode() for f in reply.outputs["image_bytes"].string_val
    ]
    rows = [{"prompt": p, "seed": 5} for p in ("a fox", "狐")]
    answers = [
        ask(toy, "/v1/models/toy:predict", {"instances": rows})[2]["predictions"],
        ask(
            toy,
            "/v1/models/toy:predict",
            {"signature_name": "generate", "instances": rows},
        )[2]["predictions"],
    ]
    for answer in answers:
        assert [row["image_bytes"]["b64"] for row in answer] == files
        assert [row["truncated"] for row in answer] == [False, False]
    document = {"inputs": {"prompt": ["a fox", "狐"], "seed": [5]}}
    outputs = ask(toy, "/v1/models/toy:predict", document)[2]["outputs"]
    assert [entry["b64"] for entry in outputs["image_bytes"]] == files


def test_pictures_go_in_as_base64(toy):
    ids = {"signature_name": "decode", "inputs": [[41] * 3]}
    files = ask(toy, "/v1/models/toy:predict", ids)[2]["outputs"]
    back = {"signature_name": "encode", "inputs": files}
    assert ask(toy, "/v1/models/toy:predict", back)[2] == {"outputs": [[41] * 3]}


def test_what_a_graph_refuses_is_said_without_its_words(toy):
    wrong = {"prompt": ["a", "b"], "guidance_scale": [100]}
    status, _, answer = ask(toy, "/v1/models/toy:predict", {"inputs": wrong})
    words = "guidance_scale must lie in [0, 30]. Received: 100"
    assert (status, answer) == (400, {"error": words})
    columns = columns_of(["a", "b"]) | {"guidance_scale": np.float32([100])}
    request = predict(columns, name="toy")
    assert caller(toy.address)("Predict", request) == (INVALID, words)


def test_the_page_is_there_if_wanted(toy, server):
    status, kind, content = ask(toy, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b'data-model="toy"' in content
    assert ask(toy, "/", method="HEAD") == (200, "text/html; charset=utf-8", b"")
    assert ask(server, "/")[0] == 404


def test_names_may_be_escaped(toy):
    assert ask(toy, "/v1/models/t%6fy")[0] == 200
    assert ask(toy, "/v1/models/t%2f..")[0] == 400


# What follows needs no model: a small application behind the same server.


@pytest.fixture
def echo():
    def application(environ, start_response):
        body = environ["wsgi.input"].read()
        if body == b"wait":
            begun.release()
            end = time.monotonic() + 30
            gone = environ["waitress.client_disconnected"]
            while not gone() and time.monotonic() < end:
                time.sleep(0.01)
            seen.append(gone())
        if body == b"slow":
            begun.release()
            time.sleep(0.3)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    seen, begun = [], threading.Semaphore(0)
    port = listening("127.0.0.1", 0)
    server = HttpServer(application, port, threads=2, max_body_bytes=10_000)
    server.rest_address = f"127.0.0.1:{port.getsockname()[1]}"
    server.seen, server.begun = seen, begun
    server.start()
    yield server
    server.stop(grace=5)


def connect(server):
    host, port = server.rest_address.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def body_of(connection):
    """Reads one whole response, which may come in several pieces; returns its body."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.read()


def test_garbage_and_slow_clients_hold_nothing_up(echo):
    slow = [connect(echo) for _ in range(9)]  # more than threads
    for connection in slow:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf")
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 5000, b"GET\r\n\r\n"):
        with connect(echo) as connection:
            connection.sendall(garbage + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
    assert ask(echo, "/", b"fine")[2] == b"fine"
    slow[0].sendall(b" nine")
    assert body_of(slow[0]) == b"half nine"
    for connection in slow:
        connection.close()


def test_large_bodies_and_headers_are_refused(echo):
    assert ask(echo, "/", b"x" * 9_999)[0] == 200
    assert ask(echo, "/", b"x" * 10_001)[0] == 413
    with connect(echo) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
        assert connection.recv(1000).split()[1] == b"431"
    assert ask(echo, "/", b"fine")[0] == 200


def test_a_client_that_leaves_is_noticed(echo):
    connection = connect(echo)
    connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nwait")
    assert echo.begun.acquire(timeout=30)
    connection.close()
    end = time.monotonic() + 30
    while not echo.seen and time.monotonic() < end:
        time.sleep(0.01)
    assert echo.seen == [True]


def test_stop_lets_answers_out(echo):
    connections = [connect(echo) for _ in range(2)]
    for connection in connections:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nslow")
    for _ in connections:
        assert echo.begun.acquire(timeout=30)
    echo.stop(grace=30)
    for connection in connections:
        assert body_of(connection) == b"slow"
    with pytest.raises(ConnectionRefusedError):
        connect(echo)
