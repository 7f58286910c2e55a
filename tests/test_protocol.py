"""The embedded server answers as `tensorflow_model_server` 2.21 was seen to answer."""

import concurrent.futures

import numpy as np
import pytest
import stand_in
import tensorflow as tf
from serving_calls import (
    GOOD,
    IMAGE,
    INVALID,
    NOT_FOUND,
    OK,
    PRECONDITION,
    TEXT,
    caller,
    metadata,
    ours,
    predict,
    status,
)
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)


@pytest.fixture(scope="module")
def address(stand_ins):
    with stand_in.served(stand_ins, "parti") as address:
        yield address


@pytest.fixture(scope="module")
def toy_address(stand_ins):
    with stand_in.served(stand_ins, "toy") as address:
        yield address


@pytest.fixture(scope="module")
def call(address):
    return caller(address)


TORN = tf.make_tensor_proto(IMAGE)
TORN.tensor_content = TORN.tensor_content[:-5]


def without(key):
    return {k: v for k, v in GOOD.items() if k != key}


SIZES = "input size does not match signature: "
WANT = "len({seed,temperature,text}). "
REFUSED = {
    "version": (
        predict(GOOD, version=1),
        NOT_FOUND,
        "Servable not found for request: Specific(parti, 1)",
    ),
    "label": (
        predict(GOOD, label="stable"),
        INVALID,
        "Unrecognized servable version label: stable",
    ),
    "model": (
        predict(GOOD, name="nope"),
        NOT_FOUND,
        "Servable not found for request: Latest(nope)",
    ),
    "no name": (
        predict(GOOD, name=""),
        INVALID,
        "ModelSpec has no name specified.",
    ),
    "no spec": (predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
    "signature": (
        predict(GOOD, signature="foo"),
        PRECONDITION,
        'Serving signature key "foo" not found.',
    ),
    "missing input": (
        predict(without("seed")),
        INVALID,
        f"{SIZES}2!=3 len({{temperature,text}}) != {WANT}"
        "Sent extra: {}. Missing but required: {seed}.",
    ),
    "extra input": (
        predict({**GOOD, "extra": np.int32(1)}),
        INVALID,
        f"{SIZES}4!=3 len({{extra,seed,temperature,text}}) != {WANT}"
        "Sent extra: {extra}. Missing but required: {}.",
    ),
    "misnamed input": (
        predict({**without("text"), "tex": TEXT}),
        INVALID,
        "Signature input alias: text(feed name: serving_default_text:0) not found in "
        "request and no default value provided. Inputs expected to be in the request "
        "{seed,temperature,tex}, or default input alias set: ",
    ),
    "no inputs": (
        predict({}),
        INVALID,
        f"{SIZES}0!=3 len({{}}) != {WANT}"
        "Sent extra: {}. Missing but required: {seed,temperature,text}.",
    ),
    "dtype": (
        predict({**GOOD, "seed": np.int64(3)}),
        INVALID,
        "Expects arg[0] to be int32 but int64 is provided",
    ),
    "torn tensor": (
        predict({"image": TORN}, signature="encode"),
        INVALID,
        "tensor parsing error: image",
    ),
    "unknown output": (
        predict(GOOD, output_filter=["nope"]),
        INVALID,
        "output tensor alias not found in signature: nope "
        "Outputs expected to be in the set {image,png}.",
    ),
    "output twice": (
        predict(GOOD, output_filter=["png", "png"]),
        INVALID,
        "duplicate output tensor alias: png",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_predict_refuses_with_the_real_servers_code_and_words(call, case):
    request, code, message = REFUSED[case]
    assert call("Predict", request) == (code, message)
    assert call("Predict", predict(GOOD))[0] == OK


@pytest.mark.parametrize("spec", [{}, {"signature": "serving_default"}, {"version": 2}])
def test_predict_answers_and_says_what_answered(call, spec):
    code, reply = call("Predict", predict(GOOD, **spec))
    assert code == OK
    assert reply.model_spec.name == "parti"
    assert reply.model_spec.version.value == 2
    assert reply.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(reply.outputs["image"]).shape == (2, 16, 16, 3)


def test_numbers_come_in_typed_fields_and_pictures_as_strings(call):
    outputs = call("Predict", predict(GOOD))[1].outputs
    assert outputs["image"].tensor_content == b""
    assert len(outputs["image"].int_val) == 2 * 16 * 16 * 3
    picture = tf.io.decode_png(outputs["png"].string_val[1]).numpy()
    np.testing.assert_array_equal(picture, tf.make_ndarray(outputs["image"])[1])


def test_output_filter_chooses_outputs(call):
    reply = call("Predict", predict(GOOD, output_filter=["png"]))[1]
    assert list(reply.outputs) == ["png"]


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (0, 16, 16, 3)])
def test_shapes_are_the_graphs_business(call, shape):
    image = np.full(shape, 0.2, np.float32)
    code, reply = call("Predict", predict({"image": image}, signature="encode"))
    codes = tf.make_ndarray(reply.outputs["codes"])
    assert code == OK
    np.testing.assert_array_equal(codes, np.full(shape, 51, np.int32)[:, ::4, ::4, 0])


def test_error_in_the_graph_keeps_its_code_and_names_its_node(call):
    request = predict({"image": np.zeros(2, np.float32)}, signature="encode")
    code, message = call("Predict", request)
    assert code == INVALID
    assert message.startswith("Index out of range using input dim 1")
    assert "{{node strided_slice}}" in message


def test_signature_defaults_fill_what_a_request_leaves_out(toy_address):
    call = caller(toy_address)
    full = {
        "prompt": np.array([b"a fox"], object),
        "seed": np.array([0], np.int64),
        "guidance_scale": np.array([1], np.float32),
        "temperature": np.array([1], np.float32),
        "top_k": np.array([0], np.int32),
        "top_p": np.array([1], np.float32),
    }
    replies = [
        call("Predict", predict(inputs, name="toy"))
        for inputs in (full, {"prompt": full["prompt"]})
    ]
    assert replies[0][0] == OK
    assert replies[0] == replies[1]
    code, message = call("Predict", predict({"seed": full["seed"]}, name="toy"))
    assert code == INVALID
    assert message == (
        "Signature input alias: prompt(feed name: serving_default_prompt:0) not found "
        "in request and no default value provided. Inputs expected to be in the "
        "request {seed}, or default input alias set: "
        "guidance_scale,seed,temperature,top_k,top_p"
    )
    wrong = {"prompt": full["prompt"], "sed": full["seed"]}
    code, message = call("Predict", predict(wrong, name="toy"))
    assert code == INVALID
    assert message == (
        "Inputs contains invalid name. Used request inputs: prompt, "
        "request input: prompt,sed"
    )


def test_metadata_describes_every_signature(call):
    code, reply = call("GetModelMetadata", metadata())
    assert code == OK
    assert reply.model_spec.version.value == 2
    assert reply.model_spec.signature_name == ""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    signatures = signatures.signature_def
    assert sorted(signatures) == ["__saved_model_init_op", "encode", "serving_default"]
    default = signatures["serving_default"]
    assert default.inputs["text"].name == "serving_default_text:0"
    assert default.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (metadata(fields=["foo"]), INVALID, "Metadata field foo is not supported"),
        (
            metadata(fields=[]),
            INVALID,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            metadata(name="nope"),
            NOT_FOUND,
            "Servable not found for request: Latest(nope)",
        ),
        (metadata(name=""), INVALID, "ModelSpec has no name specified."),
    ],
)
def test_metadata_refuses_as_the_real_server(call, request_, code, message):
    assert call("GetModelMetadata", request_) == (code, message)


@pytest.mark.parametrize("version", [None, 2])
def test_status_lists_the_version_as_available(call, version):
    code, reply = call("GetModelStatus", status(version=version))
    assert code == OK
    (entry,) = reply.model_version_status
    assert (entry.version, entry.state) == (2, entry.AVAILABLE)
    assert entry.HasField("status")
    assert entry.status.error_code == 0


def test_status_and_reload_refuse_as_the_real_server(call):
    missing = "Could not find any versions of model nope"
    assert call("GetModelStatus", status("nope")) == (NOT_FOUND, missing)
    missing = "Could not find version 9 of model parti"
    assert call("GetModelStatus", status(version=9)) == (NOT_FOUND, missing)
    empty = model_management_pb2.ReloadConfigRequest()
    assert call("HandleReloadConfigRequest", empty) == (
        INVALID,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported",
    )


def test_classifiers_and_regressors_are_refused_as_by_the_real_server(call):
    classify = classification_pb2.ClassificationRequest()
    regress = regression_pb2.RegressionRequest()
    for method, request in (("Classify", classify), ("Regress", regress)):
        assert call(method, request) == (INVALID, "Missing ModelSpec")
        request.model_spec.name = "parti"
        assert call(method, request) == (INVALID, "Expected one input Tensor.")
    assert call("MultiInference", inference_pb2.MultiInferenceRequest()) == (
        INVALID,
        "ModelSpec has no name specified.",
    )


@ours
def test_long_messages_are_cut(call):
    code, message = call("Predict", predict(GOOD, signature="é" * 2000))
    whole = f'Serving signature key "{"é" * 2000}" not found.'
    assert code == PRECONDITION
    assert message.endswith("...TRUNCATED")
    cut = message.removesuffix("...TRUNCATED")
    assert whole.startswith(cut)
    assert 1023 <= len(cut.encode()) <= 1024


def test_many_requests_at_once_get_their_own_answers(call):
    def picture(seed):
        reply = call("Predict", predict({**GOOD, "seed": np.int32(seed)}))[1]
        return reply.outputs["png"].string_val[0]

    alone = [picture(seed) for seed in range(23)]
    assert len(set(alone)) == 23
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(picture, range(23))) == alone


def test_message_of_twelve_megabytes_passes(call):
    image = np.zeros((4001, 16, 16, 3), np.float32)
    code, reply = call("Predict", predict({"image": image}, signature="encode"))
    assert code == OK
    assert tf.make_ndarray(reply.outputs["codes"]).shape == (4001, 4, 4)
