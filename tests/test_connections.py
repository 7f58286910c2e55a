"""How both kinds of client bear servers that are away, busy, slow or secret."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import stand_in
import tensorflow as tf
import trustme
from clients import KINDS, NAMES
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_parti.serving.client import AsyncClient, Client
from keras_parti.serving.pictures import write_picture
from keras_parti.serving.server import Server

both_kinds = pytest.mark.parametrize("kind", KINDS, ids=NAMES)


@pytest.fixture(scope="module")
def address(stand_ins):
    with stand_in.served(stand_ins, "toy") as address:
        yield address


@contextlib.contextmanager
def serving(servicer, credentials=None):
    """Serves a servicer on a free port; it has its `address` meanwhile."""
    server = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    servicer.address = f"127.0.0.1:{port}"
    server.start()
    yield servicer
    server.stop(None)


@both_kinds
def test_unknown_model_and_version_are_named(kind, address):
    with (
        kind(address, model="nope") as client,
        pytest.raises(ValueError, match=r"Latest\(nope\).*no such model"),
    ):
        client.generate(["a"], 1)
    with (
        kind(address, model="toy", version=9) as client,
        pytest.raises(ValueError, match=r"Specific\(toy, 9\)"),
    ):
        client.generate(["a"], 1)


@both_kinds
def test_server_gone_says_how_to_start_one(kind, stand_ins):
    with Server(stand_ins / "toy", port=0) as server:
        client = kind(server.address, model="toy", retries=2)
        client.generate(["a"], 1)
    with client:
        begin = time.monotonic()
        with pytest.raises(ConnectionError, match="keras-parti serve DIR") as error:
            client.generate(["a"], 1)
        assert server.address in str(error.value)
        assert time.monotonic() - begin < 60  # its timeout is twice that
        with pytest.raises(ConnectionError, match="keras-parti serve DIR"):
            client.status()


@both_kinds
def test_server_that_comes_back_is_found_again(kind, stand_ins):
    with Server(stand_ins / "toy", port=0) as server:
        client = kind(server.address, model="toy", retries=12)
        before = client.generate(["a"], 1, seed=3)
    with client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.generate, ["a"], 1, seed=3)
        # So late that the channel has begun to pause by itself as well.
        time.sleep(2.0)
        with Server(stand_ins / "toy", port=server.port):
            after = answer.result()
    np.testing.assert_array_equal(before["ids"], after["ids"])


@both_kinds
def test_a_port_without_the_protocol_does_not_hang(kind):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with (
            kind(address, timeout=1.0) as client,
            pytest.raises(OSError, match=address),
        ):
            client.generate(["a"], 1)


class Moody(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Fails with the given statuses, one a request, and then answers."""

    def __init__(self, reply=None):
        self.failures = []
        self.requests = []
        self.reply = reply or predict_pb2.PredictResponse()

    def Predict(self, request, context):
        self.requests.append(request)
        if self.failures:
            context.abort(*self.failures.pop(0))
        return self.reply


@pytest.fixture
def moody():
    with serving(Moody()) as moody:
        yield moody


BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
AWAY = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
LARGE = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Received message larger than max (9 vs 8)",
)


@both_kinds
def test_only_a_server_that_is_away_is_asked_again(kind, moody):
    moody.failures = [AWAY, AWAY, BUSY]
    with (
        kind(moody.address, retries=9) as client,
        pytest.raises(ConnectionError, match=r"too busy: Server Thread.*Ask again"),
    ):
        client.predict("generate", {})
    assert len(moody.requests) == 3


@both_kinds
def test_repetitions_end(kind, moody):
    moody.failures = [AWAY] * 99
    with (
        kind(moody.address, retries=2) as client,
        pytest.raises(ConnectionError, match="Socket closed"),
    ):
        client.predict("generate", {})
    assert len(moody.requests) == 3
    begin = time.monotonic()
    with (
        kind(moody.address, retries=99, timeout=0.5) as client,
        pytest.raises(ConnectionError, match="Socket closed"),
    ):
        client.predict("generate", {})
    assert time.monotonic() - begin < 60  # 99 repetitions would take minutes


@both_kinds
@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        ((grpc.StatusCode.INVALID_ARGUMENT, "no"), ValueError, "^no$"),
        (LARGE, ValueError, "larger than max.*Send fewer or smaller"),
        ((grpc.StatusCode.INTERNAL, "boom"), OSError, "failed: INTERNAL: boom"),
        ((grpc.StatusCode.UNIMPLEMENTED, "eh"), OSError, "UNIMPLEMENTED: eh"),
        ((grpc.StatusCode.DEADLINE_EXCEEDED, "late"), TimeoutError, "longer timeout"),
    ],
    ids=lambda value: value[0].name if isinstance(value, tuple) else None,
)
def test_other_failures_are_not_asked_again(kind, moody, failure, error, words):
    moody.failures = [failure]
    with kind(moody.address) as client, pytest.raises(error, match=words):
        client.predict("generate", {})
    assert len(moody.requests) == 1


@both_kinds
def test_full_columns_are_sent(kind, moody):
    """Columns of unequal length cannot be joined by a server that batches."""
    with kind(moody.address) as client, pytest.raises(KeyError):
        client.generate(["a", "b"], num_samples=3)
    (request,) = moody.requests
    rows = {k: [d.size for d in v.tensor_shape.dim] for k, v in request.inputs.items()}
    options = ("guidance_scale", "temperature", "top_k", "top_p")
    assert rows == {name: [6] for name in ("prompt", "seed", *options)}


def strings(**columns):
    """A reply of these columns of bytes."""
    reply = predict_pb2.PredictResponse()
    for name, values in columns.items():
        reply.outputs[name].dtype = 7
        reply.outputs[name].tensor_shape.dim.add(size=len(values))
        reply.outputs[name].string_val.extend(values)
    return reply


@both_kinds
def test_large_messages_pass(kind):
    reply = strings(x=[b"x" * 9_000_000])
    with serving(Moody(reply)) as servicer, kind(servicer.address) as client:
        outputs = client.predict("generate", {"ids": np.zeros(3_000_000, np.int32)})
    assert len(outputs["x"][0]) == 9_000_000


@both_kinds
def test_upscale_sends_pictures_and_reads_pictures(kind):
    small, large = np.zeros((2, 5, 7, 3), np.uint8), np.full((10, 14, 3), 51, np.uint8)
    reply = strings(image_bytes=[write_picture(large)] * 2)
    with serving(Moody(reply)) as servicer, kind(servicer.address) as client:
        np.testing.assert_array_equal(client.upscale(small), [large, large])
    (request,) = servicer.requests
    assert request.model_spec.signature_name == "upscale"
    assert (
        list(request.inputs["image_bytes"].string_val) == [write_picture(small[0])] * 2
    )


@both_kinds
def test_score_sends_each_picture_with_its_text(kind):
    reply = predict_pb2.PredictResponse()
    reply.outputs["score"].CopyFrom(tf.make_tensor_proto(np.float32([0.25, 0.5])))
    picture = write_picture(np.zeros((5, 7, 3), np.uint8))
    with serving(Moody(reply)) as servicer, kind(servicer.address) as client:
        score = client.score([picture, picture], ["a", "狐"])
    np.testing.assert_array_equal(score, np.float32([0.25, 0.5]))
    (request,) = servicer.requests
    assert list(request.inputs["prompt"].string_val) == [b"a", "狐".encode()]
    assert list(request.inputs["image_bytes"].string_val) == [picture] * 2


def test_many_requests_of_one_async_client_wait_together():
    together = threading.Barrier(4)

    class Slow(Moody):
        def Predict(self, request, context):
            together.wait(60)  # broken if they came one after another
            return super().Predict(request, context)

    async def ask(address):
        async with AsyncClient(address) as client:
            await asyncio.gather(*(client.predict("generate", {}) for _ in range(4)))

    with serving(Slow()) as slow:
        asyncio.run(ask(slow.address))
    assert len(slow.requests) == 4


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Files of an authority, a stranger to it, and what it signed for a client."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    signed = authority.issue_cert("client.test")
    signed.private_key_pem.write_to_path(folder / "client.key")
    signed.cert_chain_pems[0].write_to_path(folder / "client.pem")
    of_server = authority.issue_cert("127.0.0.1")
    pair = of_server.private_key_pem.bytes(), of_server.cert_chain_pems[0].bytes()
    return folder, pair, authority.cert_pem.bytes()


@both_kinds
def test_tls_reaches_a_server_that_the_authority_signed(kind, certificates):
    folder, pair, _ = certificates
    with serving(Moody(), grpc.ssl_server_credentials([pair])) as moody:
        with kind(moody.address, ca_file=folder / "ca.pem") as client:
            assert client.predict("generate", {}) == {}
        with (
            kind(moody.address, ca_file=folder / "stranger.pem", retries=3) as client,
            pytest.raises(ConnectionError, match=r"TLS with the server.*`ca_file`"),
        ):
            client.predict("generate", {})
        with (
            kind(moody.address, tls=True, retries=1) as client,
            pytest.raises(ConnectionError, match="TLS with the server"),
        ):
            client.predict("generate", {})
        with kind(moody.address, retries=1) as client, pytest.raises(ConnectionError):
            client.predict("generate", {})
    assert len(moody.requests) == 1


@both_kinds
def test_tls_shows_the_clients_certificate_to_a_server_that_wants_one(
    kind, certificates
):
    folder, pair, root = certificates
    wanting = grpc.ssl_server_credentials([pair], root, require_client_auth=True)
    files = {"ca_file": folder / "ca.pem", "cert_file": folder / "client.pem"}
    files["key_file"] = folder / "client.key"
    with serving(Moody(), wanting) as moody:
        with kind(moody.address, **files) as client:
            assert client.predict("generate", {}) == {}
        with (
            kind(moody.address, ca_file=folder / "ca.pem", retries=1) as client,
            pytest.raises(ConnectionError),
        ):
            client.predict("generate", {})
    assert len(moody.requests) == 1


def test_files_of_tls_are_checked_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"go together.*key_file=None"):
        Client(cert_file="client.pem")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        Client(ca_file=tmp_path / "nowhere.pem")
