"""The client asks any server of the protocol, and says what to do when it cannot."""

import concurrent.futures
import socket
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import stand_in
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_parti.serving.client import Client, read_picture, write_picture
from keras_parti.serving.server import Server

BEST = (stand_in.SAMPLES, stand_in.KEEP)
PROMPTS = ["a fox", "", "Füchse, 狐, 🦊"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    stand_in.write(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with stand_in.served(folder, "toy") as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with Client(address, model="toy", best=BEST) as client:
        yield client


def toy_ids(prompt, seed):
    """The stand-in's rule, in NumPy."""
    steps = 7 * np.arange(stand_in.LENGTH)
    return (len(prompt.encode()) + seed + steps) % stand_in.NUM_CODES


def test_generate_asks_for_each_prompt_with_the_seed(client):
    drawn = client.generate(PROMPTS, seed=13)
    ids = np.array([[toy_ids(prompt, 13)] for prompt in PROMPTS])
    np.testing.assert_array_equal(drawn["ids"], ids)
    np.testing.assert_array_equal(drawn["score"], ids[:, :, 0])
    side = stand_in.SIDE
    assert drawn["images"].shape == (3, 1, side, side, 3)
    assert drawn["images"].dtype == np.uint8
    grey = np.broadcast_to(ids[:, :, :1, None, None], drawn["images"].shape)
    np.testing.assert_array_equal(drawn["images"], grey)
    lengths = [len(prompt.encode()) for prompt in PROMPTS]
    np.testing.assert_array_equal(drawn["num_tokens"], lengths)
    np.testing.assert_array_equal(drawn["truncated"], np.array(lengths) > 20)


# 90 lets the rule wrap around, so that scores do not just rise with the seed.
@pytest.mark.parametrize("seed", [0, 90, -5])
def test_the_servers_choice_is_the_clients(client, seed):
    """`generate_best` is the best rows of `generate` with the seeds that follow."""
    served = client.generate(PROMPTS, *BEST, seed=seed)
    rows = Client(client.address, model="toy", best=(1, 1)).generate(
        PROMPTS, *BEST, seed=seed
    )
    assert served.keys() == rows.keys()
    for name in served:
        np.testing.assert_array_equal(served[name], rows[name], err_msg=name)
    all_ids = [[toy_ids(p, seed + j) for j in range(BEST[0])] for p in PROMPTS]
    scores = np.sort(np.array(all_ids)[:, :, 0], axis=1)[:, ::-1][:, : BEST[1]]
    np.testing.assert_array_equal(served["score"], scores)


def test_more_rows_than_a_request_takes_come_in_order(client):
    drawn = client.generate(["a", "bcd"], num_samples=29, keep=29, seed=1)
    assert drawn["images"].shape[:2] == (2, 29)
    np.testing.assert_array_equal(
        np.sort(drawn["ids"][1, :, 0]),
        np.sort([toy_ids("bcd", 1 + j)[0] for j in range(29)]),
    )
    assert (np.diff(drawn["score"]) <= 0).all()


def test_wrong_knowledge_of_the_served_choice_is_said(address):
    with pytest.raises(ValueError, match="keeps 2 pictures in generate_best, not 3"):
        Client(address, model="toy", best=(7, 3)).generate(["a"], 7, 3)


def test_encode_and_decode_are_inverse(client):
    ids = np.repeat(np.array([[3], [96], [0], [41]]), stand_in.LENGTH, axis=1)
    images = client.decode(ids)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(client.encode(images), ids)
    np.testing.assert_array_equal(client.encode(images / 255.0), ids)
    np.testing.assert_array_equal(client.encode([write_picture(images[1])]), ids[1:2])
    many = np.tile(ids, (9, 1))
    np.testing.assert_array_equal(client.encode(client.decode(many)), many)


def test_pictures_survive_their_files():
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(read_picture(write_picture(image)), image)


def test_status_tells_versions(client):
    assert client.status() == {1: "AVAILABLE"}
    assert Client(client.address, model="toy", version=1).generate(["a"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 2, "keep": 3}, "1 ≤ keep ≤ num_samples.*keep=3"),
        ({"num_samples": 0, "keep": 0}, "num_samples=0, keep=0"),
        ({"seed": 1 << 63}, r"`seed` must be an integer in \[-2\*\*63"),
        ({"prompts": []}, "prompts must hold at least one"),
    ],
)
def test_mistakes_are_found_before_asking(client, options, words):
    with pytest.raises(ValueError, match=words):
        client.generate(**{"prompts": ["a"], **options})


def test_prompts_that_are_no_text_are_a_type_error(client):
    with pytest.raises(TypeError, match=r"prompts must be strings. Received: 3"):
        client.generate(["a", 3])
    with pytest.raises(TypeError, match=r"prompts must be a list.*Received: 'a fox'"):
        client.generate("a fox")


def test_odd_bytes_of_a_shell_are_sent(client):
    assert client.generate(["caf\udce9"])["num_tokens"] == [6]


def test_pictures_that_are_none_are_refused(client):
    with pytest.raises(ValueError, match=r"\(height, width, 3\).*\(5, 5\)"):
        client.encode(np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"float in \[0, 1\].*255"):
        client.encode(np.full((2, 5, 5, 3), 255.0))
    with pytest.raises(ValueError, match="At least one"):
        client.encode([])
    with pytest.raises(ValueError, match=r"shape \(batch, length\).*float64"):
        client.decode(np.zeros((1, 3)))


def test_the_servers_words_are_in_the_error(client):
    words = r"^guidance_scale must lie in \[0, 30\]. Received: \[31.5\]$"
    with pytest.raises(ValueError, match=words):
        client.generate(["a"], guidance_scale=31.5)
    with pytest.raises(ValueError, match='Serving signature key "upscale" not found'):
        client.predict("upscale", {})


def test_unknown_model_and_version_are_named(address):
    with pytest.raises(ValueError, match=r"Latest\(nope\).*no such model"):
        Client(address, model="nope").generate(["a"])
    with pytest.raises(ValueError, match=r"Specific\(toy, 9\)"):
        Client(address, model="toy", version=9).generate(["a"])


def test_server_gone_says_how_to_start_one(folder):
    with Server(folder / "toy", port=0) as server:
        client = Client(server.address, model="toy", retries=2)
        client.generate(["a"])
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match="keras-parti serve DIR") as error:
        client.generate(["a"])
    assert server.address in str(error.value)
    assert time.monotonic() - begin < 5
    with pytest.raises(ConnectionError, match="keras-parti serve DIR"):
        client.status()


def test_server_that_comes_back_is_found_again(folder):
    with Server(folder / "toy", port=0) as server:
        client = Client(server.address, model="toy", retries=9)
        before = client.generate(["a"], seed=3)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.generate, ["a"], seed=3)
        time.sleep(0.5)
        with Server(folder / "toy", port=server.port):
            after = answer.result()
    np.testing.assert_array_equal(before["ids"], after["ids"])


def test_a_port_without_the_protocol_does_not_hang():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(OSError, match=address):
            Client(address, timeout=1.0).generate(["a"])


class Moody(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Fails with the given statuses, one a request, and then answers."""

    def __init__(self, failures):
        self.failures = list(failures)
        self.requests = []

    def Predict(self, request, context):
        self.requests.append(request)
        if self.failures:
            context.abort(*self.failures.pop(0))
        return predict_pb2.PredictResponse()


@pytest.fixture
def moody():
    servicer = Moody([])
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(None)


BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
AWAY = (grpc.StatusCode.UNAVAILABLE, "Socket closed")


def test_busy_and_away_are_asked_again(moody):
    moody.failures = [BUSY, AWAY, BUSY]
    assert Client(moody.address, retries=3).predict("generate", {}) == {}
    assert len(moody.requests) == 4


def test_repetitions_end(moody):
    moody.failures = [BUSY] * 9
    with pytest.raises(ConnectionError, match="too busy: Server Threadpool Exhausted"):
        Client(moody.address, retries=2).predict("generate", {})
    assert len(moody.requests) == 3
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match="too busy"):
        Client(moody.address, retries=99, timeout=0.5).predict("generate", {})
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        ((grpc.StatusCode.INVALID_ARGUMENT, "no"), ValueError, "^no$"),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, "too large"), ValueError, "too large"),
        ((grpc.StatusCode.INTERNAL, "boom"), OSError, "failed: INTERNAL: boom"),
        ((grpc.StatusCode.UNIMPLEMENTED, "eh"), OSError, "UNIMPLEMENTED: eh"),
        ((grpc.StatusCode.DEADLINE_EXCEEDED, "late"), TimeoutError, "longer timeout"),
    ],
)
def test_other_failures_are_not_asked_again(moody, failure, kind, words):
    moody.failures = [failure]
    with pytest.raises(kind, match=words):
        Client(moody.address).predict("generate", {})
    assert len(moody.requests) == 1


def test_full_columns_are_sent(moody):
    """Columns of unequal length cannot be joined by a server that batches."""
    with pytest.raises(KeyError):
        Client(moody.address).generate(["a", "b"], num_samples=3)
    (request,) = moody.requests
    rows = {k: [d.size for d in v.tensor_shape.dim] for k, v in request.inputs.items()}
    options = ("guidance_scale", "temperature", "top_k", "top_p")
    assert rows == {name: [6] for name in ("prompt", "seed", *options)}


def test_large_replies_pass():
    reply = predict_pb2.PredictResponse()
    reply.outputs["x"].dtype = 7
    reply.outputs["x"].tensor_shape.dim.add(size=1)
    reply.outputs["x"].string_val.append(b"x" * 9_000_000)
    servicer = Moody([])
    servicer.Predict = lambda request, context: reply
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    outputs = Client(f"127.0.0.1:{port}").predict("generate", {})
    assert len(outputs["x"][0]) == 9_000_000
    server.stop(None)
