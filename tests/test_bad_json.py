"""No HTTP request breaks a server: status and words for each, and the next is well."""

import base64
import contextlib
import http.client
import json
import os

import pytest
from bad_input import cases
from hypothesis import given
from hypothesis import strategies as st

from keras_parti.serving.server import Server

pytestmark = pytest.mark.skipif(
    "KERAS_PARTI_SERVER" in os.environ, reason="tests the embedded server itself"
)

PATH = "/v1/models/toy:predict"
GOOD = {"inputs": {"prompt": ["a fox", ""], "seed": [3, 5]}}


class SoundRest:
    """Holds a server to its word over HTTP, as `bad_input.Sound` does over gRPC."""

    def __init__(self, port):
        self.port = port
        self.expected = self.ask("POST", PATH, json.dumps(GOOD).encode())
        assert self.expected[0] == 200, self.expected

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def __call__(self, method, path, body=None):
        status, content = self.ask(method, path, body)
        assert status in (200, 400, 404, 405, 413, 501), (status, content)
        if status != 200 and path.startswith("/v1/"):
            assert json.loads(content)["error"]
        elif status == 200 and method == "POST":
            assert json.loads(content)
        assert self.ask("POST", PATH, json.dumps(GOOD).encode()) == self.expected
        return status, content

    def refuses(self, body, words=""):
        status, content = self("POST", PATH, body)
        assert status == 400, content
        assert words in json.loads(content)["error"]


@pytest.fixture(scope="module")
def toy(stand_ins):
    with Server(stand_ins / "toy", port=0, rest_port=0) as server:
        yield SoundRest(server.rest_port)


BODIES = {
    "nothing": b"",
    "a space": b" ",
    "half": b'{"inputs": {"prompt": ["a"',
    "two": b'{"inputs": {"prompt": ["a"]}} {}',
    "chance": bytes(range(256)) * 40,
    "invalid UTF-8": b'{"inputs": {"prompt": ["\xff\xfe"]}}',
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "an open list, 100,000 deep": b"[" * 100_000,
    "a list, 100,000 deep": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects, 20,000 deep": b'{"inputs": ' + b'{"a": ' * 20_000 + b"1" + b"}" * 20_001,
    "NaN": b"NaN",
    "null": b"null",
    "a number": b"3",
    "a number of a million digits": b'{"inputs": ' + b"9" * 1_000_000 + b"}",
    "a list": b"[]",
    "a text": b'"inputs"',
    "an object of nothing": b"{}",
    "other keys": b'{"input": {"prompt": ["a"]}}',
    "no instances": b'{"instances": []}',
    "instances and inputs": b'{"instances": [{"prompt": "a"}], "inputs": {}}',
    "instances that are none": b'{"instances": 3}',
    "instances of null": b'{"instances": [null]}',
    "instances of two kinds": b'{"instances": [{"prompt": "a"}, "b"]}',
    "instances of two sets": b'{"instances": [{"prompt": "a"}, {"seed": 1}]}',
    "inputs of null": b'{"inputs": null}',
    "a signature that is none": b'{"signature_name": 3, "inputs": {"prompt": ["a"]}}',
    "a signature of null": b'{"signature_name": null, "inputs": {"prompt": ["a"]}}',
    "an unknown signature": b'{"signature_name": "x", "inputs": {"prompt": ["a"]}}',
}
INPUTS = {
    "an unknown input": {"prompt": ["a"], "sed": [1]},
    "a number for a text": {"prompt": [3]},
    "null for a text": {"prompt": [None]},
    "an object for a text": {"prompt": [{"a": "b"}]},
    "b64 that is none": {"prompt": [{"b64": "!!!"}]},
    "b64 of half a byte": {"prompt": [{"b64": "A"}]},
    "b64 of a number": {"prompt": [{"b64": 3}]},
    "b64 and more": {"prompt": [{"b64": "QQ==", "c": 1}]},
    "texts of unequal depth": {"prompt": ["a", ["b"]]},
    "lists of unequal length": {"prompt": ["a"], "seed": [[1, 2], [3]]},
    "a text for a number": {"prompt": ["a"], "seed": ["1"]},
    "a fraction for an integer": {"prompt": ["a"], "seed": [1.5]},
    "an integer of 65 bits": {"prompt": ["a"], "seed": [1 << 64]},
    "an integer of 33 bits for 32": {"prompt": ["a"], "top_k": [1 << 32]},
    "an infinite scale": {"prompt": ["a"], "guidance_scale": [1e39]},
    "true for a number": {"prompt": ["a"], "seed": [True]},
    "seeds for other prompts": {"prompt": ["a"], "seed": [1, 2, 3]},
    "a scale out of range": {"prompt": ["a"], "guidance_scale": [31.0]},
}


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_are_no_request_are_refused(toy, case):
    toy.refuses(BODIES[case])


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_that_do_not_fit_are_refused(toy, case):
    toy.refuses(json.dumps({"inputs": INPUTS[case]}).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(toy, number):
    body = f'{{"inputs": {{"prompt": ["a"], "guidance_scale": [{number}]}}}}'
    status, _ = toy("POST", PATH, body.encode())
    # The real server reads NaN and Infinity; the stand-in refuses what is above 30.
    assert status == 400 or number == "-Infinity"


def test_a_large_body_is_refused(toy):
    """Its sender may still write when the server has answered and closed."""
    with contextlib.suppress(ConnectionError):
        status, content = toy.ask("POST", PATH, b'{"inputs": "' + bytes(20 << 20))
        assert status == 413
        assert content
    assert toy.ask("POST", PATH, json.dumps(GOOD).encode()) == toy.expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.just({"b64": base64.b64encode(b"\xff").decode()}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["prompt", "seed", "b64", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@cases(80)
@given(
    key=st.sampled_from(["inputs", "instances"]),
    value=JSON,
    signature=st.sampled_from(["generate", "encode", "decode", "", "x"]),
)
def test_documents_of_chance_are_answered(toy, key, value, signature):
    document = {"signature_name": signature, key: value}
    toy("POST", PATH, json.dumps(document).encode())


@cases(40)
@given(name=st.sampled_from(["prompt", "seed", "guidance_scale", "top_k"]), value=JSON)
def test_inputs_of_chance_are_answered(toy, name, value):
    document = {"inputs": {"prompt": ["a"], name: value}}
    toy("POST", PATH, json.dumps(document).encode())


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(toy, method):
    assert toy.ask(method, PATH)[0] in (400, 404, 405, 501)
    assert toy.ask("POST", PATH, json.dumps(GOOD).encode()) == toy.expected


PATHS = [
    "/", "/v1", "/v1/", "/v1/models", "/v1/models/", "/v1/models/toy:",
    "/v1/models/:predict", "/v1/models/toy:foo", "/v1/models/toy/versions/:predict",
    "/v1/models/toy/versions/a:predict",
    "/v1/models/toy/versions/-1:predict", "/v1/models/toy/labels/stable:predict",
    "/v1/models/toy/versions/99999999999999999999:predict", "/v2/models/toy:predict",
    "/v1/models/../../etc/passwd:predict", "/v1/models/%2e%2e%2f:predict",
    "/v1/models/%00:predict", "/v1/models/%ff:predict", "/v1/models/toy:predict/",
    "/v1/models/" + "a" * 50_000 + ":predict",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_other_paths_are_refused(toy, path):
    for method in ("POST", "GET"):
        assert toy(method, path, json.dumps(GOOD).encode())[0] in (400, 404)
