"""Requests to the stand-in models, and how tests send them to a server."""

import http.client
import os
import shutil
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

# Servers of other makers answer the same; only what is about files, ports and
# processes is tested on our own alone.
ours = pytest.mark.skipif(
    "KERAS_PARTI_SERVER" in os.environ, reason="tests the embedded server itself"
)


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


def metadata(name="parti", fields=("signature_def",)):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


def status(name="parti", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def copy(folder, tmp_path, versions):
    for version in versions:
        target = tmp_path / "parti" / str(version)
        shutil.copytree(folder / "parti" / "2", target)
    return tmp_path / "parti"


def write_warm_up(version, requests):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def loaded(server):
    """The newest loaded version of a server's first model, to be tampered with."""
    with next(iter(server.models)).lease() as servable:
        return servable


def behind_gate(servable):
    """Makes a version answer only once the event that this returns is set."""
    gate, call_now = threading.Event(), servable.call

    def call_behind_gate(*arguments):
        assert gate.wait(30)
        return call_now(*arguments)

    servable.call = call_behind_gate
    return gate


def columns_of(prompts, seed=0):
    """Full columns of every input of the toy's `generate`."""
    rows = len(prompts)
    return {
        "prompt": np.array([prompt.encode() for prompt in prompts], object),
        "seed": np.full(rows, seed, np.int64),
        "guidance_scale": np.ones(rows, np.float32),
        "temperature": np.ones(rows, np.float32),
        "top_k": np.zeros(rows, np.int32),
        "top_p": np.ones(rows, np.float32),
    }


def metrics(server):
    """The samples of a server's metrics, a dict from name and labels to value."""
    connection = http.client.HTTPConnection(server.rest_address)
    connection.request("GET", "/monitoring/prometheus/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}
