"""JSON as tensors and back, with the real server's words for what does not fit."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.protobuf import meta_graph_pb2

from keras_parti.serving.json_tensors import parse, read_inputs, to_json, write_outputs


def infos(**dtypes):
    return {
        name: meta_graph_pb2.TensorInfo(dtype=tf.dtypes.as_dtype(d).as_datatype_enum)
        for name, d in dtypes.items()
    }


DRAW = infos(prompt="string", seed="int64", top_p="float32", top_k="int32")
DEFAULTS = {"seed", "top_p", "top_k"}


def read(document, known=DRAW, defaults=DEFAULTS):
    return read_inputs(document, known, defaults)


def test_rows_and_columns_say_the_same():
    rows = [{"prompt": "a fox", "seed": 3}, {"prompt": "狐", "seed": -(1 << 63)}]
    columns = {"prompt": ["a fox", "狐"], "seed": [3, -(1 << 63)]}
    (by_rows, first), (by_columns, second) = (
        read({"instances": rows}),
        read({"inputs": columns}),
    )
    assert (first, second) == (True, False)
    assert by_rows.keys() == by_columns.keys() == {"prompt", "seed"}
    for name in by_rows:
        np.testing.assert_array_equal(by_rows[name], by_columns[name])
    assert by_rows["prompt"].tolist() == [b"a fox", "狐".encode()]
    assert by_rows["seed"].dtype == np.int64


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_one_input_needs_no_name(key):
    files = [b"\x89PNG\x00", b""]
    document = {key: [{"b64": base64.b64encode(f).decode()} for f in files]}
    found, _ = read(document, infos(image_bytes="string"), set())
    assert found["image_bytes"].tolist() == files
    found, _ = read({key: ["a", "b"]})  # where only one has no default, too
    assert found["prompt"].tolist() == [b"a", b"b"]


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from(["float32", "float64", "int32", "int64", "bool"]),
        arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
    )
)
def test_numbers_survive_the_way_there_and_back(array):
    text = json.dumps({"inputs": {"x": to_json(array, "x")}})
    found, _ = read(parse(text.encode()), infos(x=array.dtype.name), set())
    assert found["x"].dtype == array.dtype
    np.testing.assert_array_equal(found["x"], array)


def test_floats_are_written_as_short_as_they_mean():
    values = np.array([0.1, 1e-8, 3.0, np.nan, -np.inf], np.float32)
    text = json.dumps(to_json(values, "score"))
    assert text == "[0.1, 1e-08, 3.0, NaN, -Infinity]"


def test_bytes_are_written_by_the_rule_of_names():
    content = np.array([b"\x89PNG", b"ok"], object)
    files = to_json(content, "image_bytes")
    assert [base64.b64decode(f["b64"]) for f in files] == content.tolist()
    assert to_json(content, "text") == ["\ufffdPNG", "ok"]


def test_answers_go_by_rows_or_by_columns():
    outputs = {"ids": np.arange(6).reshape(2, 3), "score": np.float32([0.5, 2])}
    assert write_outputs(outputs, by_rows=False) == {
        "outputs": {"ids": [[0, 1, 2], [3, 4, 5]], "score": [0.5, 2.0]}
    }
    assert write_outputs(outputs, by_rows=True) == {
        "predictions": [
            {"ids": [0, 1, 2], "score": 0.5},
            {"ids": [3, 4, 5], "score": 2.0},
        ]
    }
    alone = {"ids": outputs["ids"]}
    assert write_outputs(alone, by_rows=True) == {"predictions": [[0, 1, 2], [3, 4, 5]]}
    assert write_outputs(alone, by_rows=False) == {"outputs": [[0, 1, 2], [3, 4, 5]]}


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"a": np.zeros(2), "b": np.zeros(3)}, "a has inconsistent batch size: 2"),
        ({"a": np.float32(1)}, "a has no shape information"),
        ({"a": np.zeros(2), "b": np.float32(1)}, "b has no shape information"),
    ],
)
def test_answers_without_common_rows_are_refused_by_rows(outputs, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        write_outputs(outputs, by_rows=True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{x", "JSON Parse error: Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "JSON Parse error: Missing a colon after a name of object"),
        (b'{"a":}', "JSON Parse error: Invalid value. at offset: 5"),
        (b"{} {}", "The document root must not be followed by other values. at"),
        (b"[1]", r"JSON Value: \[1\] Is not object"),
        (b'{"a": "\xff"}', "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: "),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
    ],
)
def test_what_is_no_json_is_refused(body, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        parse(body)


DEEP = json.loads("[" * 40 + "]" * 40)
BAD = {
    "no key": ({}, "Missing 'inputs' or 'instances' key"),
    "both": ({"inputs": {}, "instances": []}, "expecting only one of 'inputs' or"),
    "no list": ({"instances": {}}, "Excepting 'instances' to be an list"),
    "no rows": ({"instances": []}, "No values in 'instances' array"),
    "unknown column": (
        {"inputs": {"prompt": ["a"], "sed": [1]}},
        "JSON object: does not have named input: sed",
    ),
    "unknown key": (
        {"instances": [{"prompt": "a", "sed": 1}]},
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        "JSON object: does not have named input: sed",
    ),
    "missing column": ({"inputs": {"seed": [1]}}, "Missing named input: prompt in"),
    "missing key": (
        {"instances": [{"seed": 1}]},
        "keys must be equal to: prompt,seed,top_k,top_p",
    ),
    "other keys": (
        {"instances": [{"prompt": "a", "seed": 1}, {"prompt": "b"}]},
        "Failed to process element: 1 of 'instances' list. JSON object: ",
    ),
    "value among objects": (
        {"instances": [{"prompt": "a"}, "b"]},
        "Expecting object but got list at item 1 of input list",
    ),
    "object among values": (
        {"instances": ["a", {"prompt": "b"}]},
        "Expecting value/list but got object at item 1 of input list",
    ),
    "other shapes": (
        {"instances": [{"prompt": "a"}, {"prompt": ["a", "b"]}]},
        "Failed to process element: 1 key: prompt of 'instances' list. Error: "
        "INVALID_ARGUMENT: Expecting shape [] but got: [2]",
    ),
    "text for a number": (
        {"inputs": {"prompt": ["a"], "seed": ["1"]}},
        'JSON Value: "1" Type: str is not of expected type: int64',
    ),
    "true for a number": (
        {"inputs": {"prompt": ["a"], "seed": [True]}},
        "JSON Value: true Type: bool is not of expected type: int64",
    ),
    "fraction": (
        {"inputs": {"prompt": ["a"], "top_k": [1.5]}},
        "JSON Value: 1.5 Type: float is not of expected type: int32",
    ),
    "too large": (
        {"inputs": {"prompt": ["a"], "top_k": [1 << 31]}},
        "JSON Value: 2147483648 Type: int is not of expected type: int32",
    ),
    "null": (
        {"inputs": {"prompt": [None]}},
        "JSON Value: null Type: NoneType is not of expected type: string",
    ),
    "no base64": ({"inputs": {"prompt": [{"b64": "é"}]}}, "Unable to base64 decode"),
    "object": (
        {"inputs": {"prompt": [{"b65": "YQ=="}]}},
        "not formatted correctly for base64 data",
    ),
    "half a pair": ({"inputs": {"prompt": ["\ud800"]}}, "The surrogate pair in string"),
    "ragged": (
        {"inputs": {"prompt": [["a", "b"], ["c"]]}},
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "shallow": (
        {"inputs": {"prompt": [["a"], "b"]}},
        'JSON Value: "b" found at incorrect level: 2 in the JSON DOM. '
        "Expected at level: 2",
    ),
    "deeper": (
        {"inputs": {"prompt": ["a", ["b"]]}},
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    "deep": ({"inputs": {"prompt": DEEP}}, "Lists must be nested 32 deep at most"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_the_signature_is_refused(case):
    document, words = BAD[case]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        read(document)
    assert words in error.value.message


def test_several_inputs_need_their_names():
    known = infos(image_bytes="string", prompt="string")
    for key in ("inputs", "instances"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="multiple input ten"):
            read({key: ["a"]}, known, set())
