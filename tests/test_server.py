"""The embedded server answers as `tensorflow_model_server` 2.21 was seen to answer."""

import concurrent.futures
import logging
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
import stand_in
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from keras_parti.serving.servable import to_array, to_proto
from keras_parti.serving.server import Server

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

# Servers of other makers answer the same; only what is about files, ports and
# processes is tested on our own alone.
ours = pytest.mark.skipif(
    "KERAS_PARTI_SERVER" in os.environ, reason="tests the embedded server itself"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    stand_in.write(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with stand_in.served(folder, "parti") as address:
        yield address


@pytest.fixture(scope="module")
def toy_address(folder):
    with stand_in.served(folder, "toy") as address:
        yield address


@pytest.fixture(scope="module")
def call(address):
    return caller(address)


def caller(address):
    """A function that sends a request and returns the code, and text or reply."""
    channel = grpc.insecure_channel(
        address, options=[("grpc.max_receive_message_length", -1)]
    )
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    model = model_service_pb2_grpc.ModelServiceStub(channel)

    def call(method, request, timeout=30):
        stub = prediction if hasattr(prediction, method) else model
        try:
            return OK, getattr(stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            return error.code(), error.details()

    return call


def predict(inputs, name="parti", signature="", output_filter=(), **spec):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    for key, value in inputs.items():
        proto = isinstance(value, tensor_pb2.TensorProto)
        request.inputs[key].CopyFrom(value if proto else tf.make_tensor_proto(value))
    return request


TEXT = np.array([b"a", b"b"], object)
GOOD = {"text": TEXT, "seed": np.int32(3), "temperature": np.float32(0.5)}
IMAGE = np.zeros((2, 16, 16, 3), np.float32)
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


def metadata(name="parti", fields=("signature_def",)):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


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


def status(name="parti", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


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


@ours
def test_message_above_the_limit_is_refused(folder):
    with Server(folder / "parti", port=0, max_message_bytes=100_000) as server:
        call = caller(server.address)
        image = np.zeros((11, 64, 64, 3), np.float32)
        code, message = call("Predict", predict({"image": image}, signature="encode"))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "100000" in message
        assert call("Predict", predict(GOOD))[0] == OK


@ours
@pytest.mark.parametrize("dims", [[(1 << 26) + 1], [-1], [1 << 30, 1 << 30], [2, -3]])
def test_tensor_that_claims_more_than_memory_is_refused(call, dims):
    bomb = tf.make_tensor_proto(np.float32(1))
    for size in dims:
        bomb.tensor_shape.dim.add(size=size)
    answer = call("Predict", predict({"image": bomb}, signature="encode"))
    assert answer == (INVALID, "tensor parsing error: image")


@pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        "float32",
        "float64",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "bool",
        "complex64",
        "complex128",
        "bfloat16",
        "string",
    ],
)
def test_every_type_survives_the_typed_fields(dtype):
    values = np.array([[0, 1, 0], [1, 1, 0]])
    if dtype == "string":
        array = values.astype(bytes).astype(object)
    else:
        array = values.astype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)
    proto = to_proto(array)
    assert proto.tensor_content == b""
    back = to_array(proto, "x")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)


@ours
def test_work_past_its_deadline_is_not_started(folder):
    with Server(folder / "parti", port=0, threads=1) as server:
        call = caller(server.address)
        servable = server._models.versions[2]
        runs, slow = [], servable.predict

        def predict_slowly(request):
            runs.append(request)
            time.sleep(0.5)
            return slow(request)

        servable.predict = predict_slowly
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            first = pool.submit(call, "Predict", predict(GOOD))
            time.sleep(0.1)
            late = [pool.submit(call, "Predict", predict(GOOD), 0.2) for _ in range(2)]
            codes = [answer.result()[0] for answer in late]
        assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
        assert first.result()[0] == OK
        assert call("Predict", predict(GOOD))[0] == OK
        assert len(runs) == 2


@ours
def test_queue_is_bounded(folder):
    with Server(folder / "parti", port=0, threads=1, queue=1) as server:
        call = caller(server.address)
        gate, servable = threading.Event(), server._models.versions[2]
        predict_now = servable.predict

        def predict_behind_gate(request):
            assert gate.wait(20)
            return predict_now(request)

        servable.predict = predict_behind_gate
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            answers = [pool.submit(call, "Predict", predict(GOOD)) for _ in range(5)]
            time.sleep(0.5)
            gate.set()
            codes = [answer.result()[0] for answer in answers]
    assert sorted(codes.count(code) for code in set(codes)) == [2, 3]
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3


@ours
def test_unexpected_failure_is_an_answer_too(folder, caplog):
    with Server(folder / "parti", port=0) as server:
        call = caller(server.address)
        server._models.versions[2].signatures["serving_default"] = None
        code, message = call("Predict", predict(GOOD))
        assert code == grpc.StatusCode.INTERNAL
        assert message.startswith("AttributeError")
        assert call("GetModelStatus", status())[0] == OK


def copy(folder, tmp_path, versions):
    for version in versions:
        target = tmp_path / "parti" / str(version)
        shutil.copytree(folder / "parti" / "2", target)
    return tmp_path / "parti"


@ours
def test_newest_version_by_number_is_served(folder, tmp_path):
    model = copy(folder, tmp_path, [9, 10, "11.tmp"])
    with Server(model, port=0) as server:
        assert server.version == 10
        assert caller(server.address)("GetModelStatus", status())[0] == OK


@ours
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda v: (v / "saved_model.pb").unlink(), "it has no saved_model.pb"),
        (
            lambda v: (v / "saved_model.pb").write_bytes(b"\xff" * 99),
            "its saved_model.pb cannot be read",
        ),
        (
            lambda v: (v / "variables" / "variables.index").unlink(),
            "it has no variables/variables.index",
        ),
        (
            lambda v: (v / "variables" / "variables.data-00000-of-00001").unlink(),
            "it has no variables/variables.data-*",
        ),
        (
            lambda v: os.truncate(v / "variables" / "variables.data-00000-of-00001", 3),
            "it does not load: ",
        ),
        (
            lambda v: (v / "saved_model.pb").write_bytes(b""),
            "it does not load: ",
        ),
    ],
)
def test_half_written_version_is_passed_over_or_named(
    folder, tmp_path, caplog, damage, reason
):
    model = copy(folder, tmp_path, [3, 4])
    damage(model / "4")
    with caplog.at_level(logging.WARNING), Server(model, port=0) as server:
        assert server.version == 3
        assert caller(server.address)("Predict", predict(GOOD))[0] == OK
    assert f"version 4 is not whole: {reason}" in caplog.text
    shutil.rmtree(model / "3")
    with pytest.raises(ValueError, match=r"version 4 is not whole") as error:
        Server(model, port=0).start()
    assert reason in str(error.value)


@ours
def test_missing_folders_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No model folder .*nowhere"):
        Server(tmp_path / "nowhere", port=0).start()
    with pytest.raises(FileNotFoundError, match="holds no version folders"):
        Server(tmp_path, port=0).start()
    with pytest.raises(FileNotFoundError, match=f"give {folder / 'parti'}"):
        Server(folder / "parti" / "2", port=0).start()


@ours
def test_port_in_use_is_said_at_once(folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # Before the model is looked for: that may take long.
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1: it is in use"):
            Server(tmp_path / "nowhere", port=port).start()
    with Server(folder / "parti", port=0) as first:
        assert first.port > 0
        with pytest.raises(OSError, match="it is in use"):
            Server(folder / "parti", port=first.port).start()
        # Nor may another program share the port, if it asks for that.
        with socket.socket() as sharing:
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                sharing.bind(("127.0.0.1", first.port))
    with Server(folder / "parti", port=first.port) as again:
        assert again.port == first.port
    with pytest.raises(ValueError, match=r"port must lie in \[0, 65535\].*: 70000"):
        Server(folder / "parti", port=70000)


def listens(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@ours
def test_only_loopback_listens_unless_told(folder):
    with Server(folder / "parti", port=0) as server:
        assert listens("127.0.0.1", server.port)
        # All of 127/8 is loopback; a socket on any address would answer here too.
        assert not listens("127.0.0.2", server.port)
    with Server(folder / "parti", host="0.0.0.0", port=0) as server:
        assert listens("127.0.0.2", server.port)


def write_warm_up(version, requests):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


@ours
def test_warm_up_runs_before_the_server_is_ready(folder, tmp_path):
    model = copy(folder, tmp_path, [2])
    encode = predict({"image": IMAGE}, signature="encode")
    write_warm_up(model / "2", [predict(GOOD), encode])
    with Server(model, port=0) as server:
        ran = [name for name, _ in server._models.versions[2]._runs]
    assert ran == ["serving_default", "encode"]


@ours
def test_bad_warm_up_record_makes_a_version_unfit(folder, tmp_path):
    model = copy(folder, tmp_path, [2])
    write_warm_up(model / "2", [predict(GOOD), predict({})])
    with pytest.raises(ValueError, match="warm-up record 2 fails: input size does not"):
        Server(model, port=0).start()


@ours
def test_stop_lets_work_finish_and_then_refuses(folder):
    server = Server(folder / "parti", port=0).start()
    call = caller(server.address)
    servable = server._models.versions[2]
    predict_now = servable.predict

    def predict_slowly(request):
        time.sleep(0.5)
        return predict_now(request)

    servable.predict = predict_slowly
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, "Predict", predict(GOOD))
        time.sleep(0.2)
        server.stop()
        assert answer.result()[0] == OK
    assert call("Predict", predict(GOOD), 5)[0] == grpc.StatusCode.UNAVAILABLE
    server.stop()


@ours
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_wait_ends_gracefully_on_a_signal(folder, number):
    script = (
        "import sys\n"
        "from keras_parti.serving.server import Server\n"
        "with Server(sys.argv[1], port=0) as server:\n"
        "    print(server.port, flush=True)\n"
        "    server.wait()\n"
        "print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "parti")],
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
