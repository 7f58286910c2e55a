"""Replies of the real server that are none of a refusal's, word for word."""

import http.client
import json

import grpc
import numpy as np
import pytest
import stand_in
import tensorflow as tf
from serving_calls import GOOD, NOT_FOUND, OK, caller, ours, predict, status
from tensorflow_serving.apis import prediction_service_pb2_grpc

from keras_parti.serving.server import Server


@pytest.fixture(scope="module")
def address(stand_ins):
    with stand_in.served(stand_ins, "parti") as address:
        yield address


def test_a_text_of_another_rank_is_the_graphs_business(address):
    text = np.array([[b"a"]], object)
    code, reply = caller(address)("Predict", predict({**GOOD, "text": text}))
    assert code == OK
    assert tf.make_ndarray(reply.outputs["image"]).shape == (1, 16, 16, 3)
    assert tf.make_ndarray(reply.outputs["png"]).shape == (1,)


def test_nothing_is_said_beside_the_reply(address):
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        _, call = stub.Predict.with_call(predict(GOOD), timeout=60)
        assert (call.initial_metadata(), call.trailing_metadata()) == ((), ())


def test_a_version_below_those_served_is_missing(address):
    missing = "Could not find version 1 of model parti"
    assert caller(address)("GetModelStatus", status(version=1)) == (NOT_FOUND, missing)


@ours
def test_rows_of_scalar_inputs_fail_in_the_graph(stand_ins):
    """The row form stacks every input, so each has to have one value a row."""
    row = {"text": "a", "seed": 3, "temperature": 0.5}
    with Server(stand_ins / "parti", port=0, rest_port=0) as server:
        connection = http.client.HTTPConnection(server.rest_address, timeout=60)
        connection.request(
            "POST", "/v1/models/parti:predict", json.dumps({"instances": [row]})
        )
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
        connection.close()
    assert answer.status == 400
    assert error.startswith(
        "Shapes of all inputs must match: values[0].shape = [1] != values[1].shape = []"
        "\n\t [[{{function_node __inference_generate_"
    )
