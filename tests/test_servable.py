"""One version of a model: tensors in and out, what is whole, and its warm-up."""

import logging
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from serving_calls import (
    GOOD,
    IMAGE,
    INVALID,
    OK,
    caller,
    copy,
    loaded,
    ours,
    predict,
    write_warm_up,
)

from keras_parti.serving.servable import Servable, to_array, to_proto
from keras_parti.serving.server import Server

pytestmark = ours


@pytest.fixture(scope="module")
def call(stand_ins):
    with Server(stand_ins / "parti", port=0) as server:
        yield caller(server.address)


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


def protos():
    """Tensors in every form that a proto may have, whole, short, long and torn."""
    for dtype in ("float32", "int32", "int64", "string", "uint8", "bool"):
        for shape in ([], [0], [1], [3], [2, 3], [0, 5], [7, 1, 1]):
            numbers = np.arange(2, 2 + int(np.prod(shape))).reshape(shape)
            array = numbers.astype(bytes if dtype == "string" else dtype)
            whole = to_proto(array.astype(object) if dtype == "string" else array)
            packed = tf.make_tensor_proto(array)
            longer, shorter, torn, bare, ranked = (type(whole)() for _ in range(5))
            for proto in (longer, shorter, bare, ranked):
                proto.CopyFrom(whole)
            field = next((f for f, v in whole.ListFields() if f.is_repeated), None)
            if field is not None:
                getattr(longer, field.name).append(getattr(whole, field.name)[0])
                getattr(shorter, field.name).pop()
                bare.ClearField(field.name)
            torn.CopyFrom(packed)
            torn.tensor_content = torn.tensor_content[:-1]
            ranked.tensor_shape.unknown_rank = True
            yield from (whole, packed, longer, shorter, torn, bare, ranked)


def test_tensors_are_read_as_by_the_parser_of_tensorflow():
    count = 0
    for proto in protos():
        try:
            dtype = tf.dtypes.as_dtype(proto.dtype)
            wanted = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
        except (tf.errors.OpError, ValueError):
            with pytest.raises(tf.errors.InvalidArgumentError, match="parsing error"):
                to_array(proto, "x")
            continue
        found = to_array(proto, "x")
        assert found.shape == np.shape(wanted)
        assert found.dtype == dtype.as_numpy_dtype
        np.testing.assert_array_equal(found, np.asarray(wanted, found.dtype))
        count += 1
    assert count > 100


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
    stand_ins, tmp_path, caplog, damage, reason
):
    model = copy(stand_ins, tmp_path, [3, 4])
    damage(model / "4")
    with caplog.at_level(logging.WARNING), Server(model, port=0) as server:
        assert server.version == 3
        assert caller(server.address)("Predict", predict(GOOD))[0] == OK
    assert f"version 4 is not whole: {reason}" in caplog.text
    shutil.rmtree(model / "3")
    with pytest.raises(ValueError, match=r"version 4 is not whole") as error:
        Server(model, port=0).start()
    assert reason in str(error.value)


def test_warm_up_runs_before_the_server_is_ready(stand_ins, tmp_path):
    model = copy(stand_ins, tmp_path, [2])
    encode = predict({"image": IMAGE}, signature="encode")
    write_warm_up(model / "2", [predict(GOOD), encode])
    with Server(model, port=0) as server:
        ran = [name for name, _ in loaded(server)._runs]
    assert ran == ["serving_default", "encode"]


def test_a_warm_up_says_how_far_it_is(stand_ins, tmp_path, caplog):
    caplog.set_level("INFO", "keras_parti.serving.servable")
    model = copy(stand_ins, tmp_path, [2])
    encode = predict({"image": IMAGE}, signature="encode")
    write_warm_up(model / "2", [encode, predict(GOOD), encode])
    Servable(model / "2", warm_up=False).close()
    assert caplog.messages == []
    Servable(model / "2").close()
    assert caplog.messages == [
        "Warming up encode (1 of 2) ...",
        "Warming up serving_default (2 of 2) ...",
    ]


def test_bad_warm_up_record_makes_a_version_unfit(stand_ins, tmp_path):
    model = copy(stand_ins, tmp_path, [2])
    write_warm_up(model / "2", [predict(GOOD), predict({})])
    with pytest.raises(ValueError, match="warm-up record 2 fails: input size does not"):
        Server(model, port=0).start()
