"""No request breaks a server: a code and a message for each, and the next is answered.

Some 300 requests, made by rules and by chance, to the stand-in model (the protocol) and
to an exported chain (the checks in its graph).
"""

import grpc
import numpy as np
import pytest
import stand_in
import tensorflow as tf
from bad_input import Sound, cases
from hypothesis import given
from hypothesis import strategies as st
from serving_calls import INVALID, OK, caller, metadata, predict, status
from small_chain import columns
from tensorflow_serving.apis import predict_pb2

from keras_parti.models import Parti, ViTVQGAN

SERVICE = "/tensorflow.serving.PredictionService/"
LENGTH = ViTVQGAN.preset_config("vit_vqgan_tiny").num_tokens
TEXT_LENGTH = Parti.preset_config("parti_tiny").text_length


@pytest.fixture(scope="module")
def toy(stand_ins):
    """Of the stand-in: what it answers to bytes, and to requests."""
    with stand_in.served(stand_ins, "toy") as address:
        channel = grpc.insecure_channel(address)

        def call(method, request, timeout=30):
            if not isinstance(request, bytes):
                return caller_(method, request, timeout)
            stub = channel.unary_unary(SERVICE + method)  # bytes as they are
            try:
                return OK, stub(request, timeout=timeout)
            except grpc.RpcError as error:
                return error.code(), error.details()

        caller_ = caller(address)
        yield Sound(call, ("Predict", predict(columns(["a"]), name="toy")))


@pytest.fixture(scope="module")
def chain(exported_client):
    """Of the exported chain, the same."""
    request = predict(columns(["a"]), name="toy", signature="generate")
    return Sound(caller(exported_client.address), ("Predict", request))


IDS = {"ids": np.zeros([1, stand_in.LENGTH], np.int32)}
GOOD = [
    ("Predict", predict(columns(["a fox", ""]), name="toy", version=1)),
    ("Predict", predict(columns(["a"]), name="toy", signature="generate_best")),
    ("Predict", predict(IDS, name="toy", signature="decode", output_filter=["x"])),
    ("GetModelMetadata", metadata("toy")),
]


@st.composite
def mutated(draw):
    """A good request with some of its bytes changed, cut out, doubled or cut off."""
    method, request = draw(st.sampled_from(GOOD))
    content = bytearray(request.SerializeToString(deterministic=True))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        end = at + draw(st.integers(0, 9))
        piece = draw(st.sampled_from(["change", "insert", "cut", "double", "end"]))
        if piece == "change":
            new = draw(st.binary(min_size=1, max_size=4))
            content[at : at + len(new)] = new
        elif piece == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif piece == "cut":
            del content[at:end]
        elif piece == "double":
            content[at:at] = content[at:end]
        else:
            del content[at:]
    return method, bytes(content)


@cases(120)
@given(case=mutated())
def test_requests_of_broken_bytes_are_answered(toy, case):
    method, content = case
    try:
        GOOD_TYPES[method].FromString(content)
    except Exception:
        # gRPC itself answers what is no message, with this code in every language.
        code, words = toy.call(method, content, 60)
        assert code == grpc.StatusCode.INTERNAL
        assert words
        assert toy.answer() == toy.expected
    else:
        toy(method, content)


GOOD_TYPES = {method: type(request) for method, request in GOOD}

DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
DTYPES += ["complex64", "string"]
SHAPES = [[], [0], [1], [2], [3], [1, 1], [2, 0], [1, LENGTH], [0, LENGTH], [2, 3, 1]]
NUMBERS = [0, 1, -1, 2.5, 1e30, -1e30, np.nan, np.inf, -np.inf, 2**31 - 1, -(2**31)]
INPUTS = [("generate", name) for name in columns(["a"])]
INPUTS += [("generate_best", "guidance_scale"), ("generate_best", "prompt")]
INPUTS += [("encode", "image_bytes"), ("decode", "ids")]


@st.composite
def tensors(draw):
    """A tensor of any type, rank and size, of values that nobody should send."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
    size = int(np.prod(shape))
    if dtype == "string":
        values = draw(st.lists(st.binary(max_size=20), min_size=size, max_size=size))
        return np.array([*values, None], object)[:size].reshape(shape)
    values = draw(st.lists(st.sampled_from(NUMBERS), min_size=size, max_size=size))
    with np.errstate(all="ignore"):
        return np.array(values, np.float64).reshape(shape).astype(dtype)


@cases(100)
@given(where=st.sampled_from(INPUTS), tensor=tensors())
def test_tensors_of_any_kind_are_answered(chain, where, tensor):
    signature, name = where
    inputs = {} if signature in ("encode", "decode") else columns(["a", "b"])
    chain("Predict", predict({**inputs, name: tensor}, "toy", signature))


OUT_OF_RANGE = [
    ("guidance_scale", value) for value in (np.nan, np.inf, -np.inf, -0.5, 30.5, 1e38)
]
OUT_OF_RANGE += [("temperature", value) for value in (np.nan, np.inf, -1.0, 10.5)]
OUT_OF_RANGE += [("top_k", value) for value in (-1, -(2**31))]
OUT_OF_RANGE += [("top_p", value) for value in (np.nan, np.inf, -0.1, 1.5)]


@pytest.mark.parametrize("signature", ["generate", "generate_best"])
@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_scales_and_counts_out_of_range_are_named(chain, signature, name, value):
    inputs = columns(["a", "b"])
    inputs[name][1] = value
    request = predict(inputs, "toy", signature)
    chain.refuses("Predict", request, f"{name} must lie in [")


@pytest.mark.parametrize("value", [-1, 2**31 - 1, -(2**31)])
def test_ids_out_of_range_are_named(chain, value):
    ids = np.zeros([2, LENGTH], np.int32)
    ids[1, -1] = value
    request = predict({"ids": ids}, "toy", "decode")
    chain.refuses("Predict", request, "ids must lie in [0, ")


PROMPTS = {
    "1 MB of words": b"red fox " * (1 << 17),
    "1 MB without a space": b"x" * (1 << 20),
    "1 MB of zeros": bytes(1 << 20),
    "1 MB of emoji": "🦊".encode() * (1 << 18),
    "1 MB of combining marks": ("e" + "\u0301" * (1 << 19)).encode(),
    "1 MB of chance": np.random.default_rng(1).bytes(1 << 20),
    "invalid UTF-8": b"\xff\xfe fox \xc3\x28 \xed\xa0\x80",
    "cut UTF-8": "狐".encode()[:2],
    "overlong UTF-8": b"\xc0\xaf\xe0\x80\xaf",
    "NUL and controls": bytes(range(32)),
    "directions and joins": "\u202e\u200d\ufeff\U000e0001 fox".encode(),
    "no word at all": b" \t\n ",
}


@pytest.mark.parametrize("case", PROMPTS)
def test_any_prompt_is_drawn(chain, case):
    """There is no wrong text: what the vocabulary lacks it spells in bytes."""
    inputs = columns([""])
    inputs["prompt"] = np.array([PROMPTS[case]], object)
    code, reply = chain("Predict", predict(inputs, "toy", "generate"))
    assert code == OK, reply
    (tokens,) = tf.make_ndarray(reply.outputs["prompt_tokens"])
    assert tf.make_ndarray(reply.outputs["truncated"]) == [tokens > TEXT_LENGTH]


@cases(20)
@given(prompt=st.one_of(st.binary(max_size=60), st.text().map(str.encode)))
def test_prompts_of_chance_are_drawn(chain, prompt):
    inputs = columns([""])
    inputs["prompt"] = np.array([prompt], object)
    assert chain("Predict", predict(inputs, "toy", "generate"))[0] == OK


@pytest.mark.parametrize("rows", [10**5, 10**7, 2**26, 2**62])
@pytest.mark.parametrize(
    ("signature", "name"),
    [("generate", "prompt"), ("generate_best", "prompt"), ("generate", "seed")],
)
def test_few_bytes_that_claim_many_rows_are_refused(chain, signature, name, rows):
    """One value and a shape of millions is a tensor of millions of equal values."""
    inputs = columns(["a"])
    bomb = tf.make_tensor_proto(inputs[name])
    bomb.ClearField("tensor_content")
    if not (bomb.string_val or bomb.int64_val):
        bomb.int64_val.append(1)
    bomb.tensor_shape.dim[0].size = rows
    chain.refuses("Predict", predict({**inputs, name: bomb}, "toy", signature))


@pytest.mark.parametrize("rows", [10**5, 10**7, 2**26])
def test_few_bytes_that_claim_many_pictures_are_refused(chain, rows):
    ids = tf.make_tensor_proto(np.zeros([1, LENGTH], np.int32))
    ids.ClearField("tensor_content")
    ids.int_val.append(1)
    ids.tensor_shape.dim[0].size = rows
    chain.refuses("Predict", predict({"ids": ids}, "toy", "decode"))
    files = tf.make_tensor_proto(np.array([b"no picture"], object))
    files.tensor_shape.dim[0].size = rows
    chain.refuses("Predict", predict({"image_bytes": files}, "toy", "encode"))


def test_broken_bytes_do_not_fill_the_log(toy, caplog):
    for _ in range(3):
        assert toy.call("Predict", b"\xff", 60)[0] == grpc.StatusCode.INTERNAL
    assert caplog.text == ""


def test_requests_without_anything_are_answered(toy):
    for method in ("Predict", "GetModelMetadata", "Classify", "Regress"):
        assert toy(method, b"") == (INVALID, "Missing ModelSpec")
    toy.refuses("MultiInference", b"")
    assert toy.call("NoSuchMethod", b"", 60)[0] == grpc.StatusCode.UNIMPLEMENTED


def test_names_of_any_kind_are_answered(toy):
    for name in (
        "",
        "a" * (1 << 20),
        "../../etc/passwd",
        "\u202e",
        "toy\0",
        "TOY",
        " ",
    ):
        toy.refuses("Predict", predict(columns(["a"]), name=name))
        toy.refuses("GetModelMetadata", metadata(name))
        toy.refuses("GetModelStatus", status(name))
        if name:
            toy.refuses("Predict", predict({}, name="toy", signature=name))
            toy.refuses("Predict", predict(columns(["a"]), "toy", output_filter=[name]))
    for version in (0, -1, 2, 2**63 - 1, -(2**63)):
        toy.refuses("Predict", predict(columns(["a"]), name="toy", version=version))
        toy.refuses("GetModelStatus", status("toy", version))


def test_a_type_that_is_none_is_refused(toy):
    for dtype in (0, 20, 21, 99, 107, 2**31 - 1, -1):
        request = predict(columns(["a"]), name="toy")
        request.inputs["seed"].dtype = dtype
        toy.refuses("Predict", request)
    request = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    request.inputs["seed"].Clear()
    toy.refuses("Predict", request)
