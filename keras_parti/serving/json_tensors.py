"""JSON of TensorFlow Serving's REST API as tensors, and tensors as JSON.

Requests come by columns, `{"inputs": {name: list}}`, or by rows, `{"instances": [{name:
value}, ...]}`; answers go the same way, as `outputs` or `predictions`. Bytes are
`{"b64": "..."}`: in requests anywhere, in answers where a name ends in `_bytes`.
"""

import base64
import binascii
import json

import numpy as np
import tensorflow as tf

from keras_parti.serving.refusals import invalid

# Python's words for what is wrong with a document, in those of the real server.
PARSE_ERRORS = {
    "Expecting property name enclosed in double quotes": (
        "Missing a name for object member."
    ),
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting value": "Invalid value.",
    "Extra data": "The document root must not be followed by other values.",
}
INTEGERS = (tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64, tf.uint32, tf.uint64)
MAX_RANK = 32
MAX_SHOWN = 200  # characters of a wrong value that an error repeats


def parse(body):
    """Reads a document that must be an object.

    Args:
        body: bytes.

    Returns:
        dict.

    Raises:
        tf.errors.InvalidArgumentError: It is none.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode())  # else UTF-16 would pass as well
    except json.JSONDecodeError as error:
        words = PARSE_ERRORS.get(error.msg, error.msg)
        raise invalid(f"JSON Parse error: {words} at offset: {error.pos}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {show(document)} Is not object")
    return document


def read_inputs(document, infos, defaults=()):
    """The inputs of a document as arrays.

    Args:
        document: dict, from `parse`.
        infos: dict of name to `TensorInfo`, the inputs of the signature.
        defaults: set of str. Inputs that may be left out.

    Returns:
        A dict of name to array, and whether the answer goes by rows.

    Raises:
        tf.errors.InvalidArgumentError: It does not fit the signature.
    """
    if "instances" in document and "inputs" in document:
        raise invalid(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist"
        )
    if "instances" in document:
        return _from_rows(document["instances"], infos, set(defaults)), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos, set(defaults)), False
    raise invalid("Missing 'inputs' or 'instances' key")


def write_outputs(outputs, by_rows):
    """Answers as the object to be written.

    Args:
        outputs: dict of name to array.
        by_rows: bool. As `predictions`, a value or an object for each row; else as
            `outputs`, a list for each name. One output alone goes without its name.

    Returns:
        dict.

    Raises:
        tf.errors.InvalidArgumentError: The outputs do not all have the same rows.
    """
    if not by_rows:
        columns = {name: to_json(array, name) for name, array in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else columns.popitem()[1]}
    for name, array in outputs.items():
        if not np.ndim(array):
            raise invalid(f"Tensor name: {name} has no shape information ")
    most = max(map(len, outputs.values()))
    for name, array in outputs.items():
        if len(array) != most:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {most}"
            )
    columns = {name: to_json(array, name) for name, array in outputs.items()}
    rows = [
        dict(zip(columns, values, strict=True))
        for values in zip(*columns.values(), strict=True)
    ]
    if len(columns) == 1:
        rows = [row.popitem()[1] for row in rows]
    return {"predictions": rows}


def to_array(value, dtype, name):
    """A JSON value, nested lists or one alone, as an array.

    Raises:
        tf.errors.InvalidArgumentError: A value has another type, or the lists have
            not all the same length.
    """
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > MAX_RANK:
        raise invalid(f"Lists must be nested {MAX_RANK} deep at most: {name}")
    flat = []

    def walk(item, level):
        if not isinstance(item, list):
            if level != len(shape):
                raise invalid(
                    f"JSON Value: {show(item)} found at incorrect level: {level + 1} "
                    f"in the JSON DOM. Expected at level: {len(shape)}"
                )
            flat.append(_scalar(item, dtype))
            return
        if level >= len(shape):
            raise invalid(
                f"Encountered list at unexpected level: {level} expected < {len(shape)}"
            )
        if len(item) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(item)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        for part in item:
            walk(part, level + 1)

    walk(value, 0)
    try:
        with np.errstate(over="raise"):
            array = np.array(flat, dtype.as_numpy_dtype)
    except (OverflowError, FloatingPointError) as error:
        raise invalid(
            f"JSON Value: of {name} is not of expected type: {_kind(dtype)}"
        ) from error
    return array.reshape(shape)


def to_json(array, name):
    """An array as nested lists of what JSON knows."""
    array = np.asarray(array)
    if array.dtype == object:
        values = [_text(item, name) for item in array.ravel()]
    elif array.dtype.kind in "fV":
        # By the shortest digits that mean this number in its own precision.
        values = [float(str(item)) for item in array.ravel()]
    else:
        values = array.ravel().tolist()
    nested = np.empty(array.size, object)
    nested[:] = values
    return nested.reshape(array.shape).tolist()


def show(value):
    """A value as an error repeats it."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _from_columns(inputs, infos, defaults):
    if not isinstance(inputs, dict) or _is_b64(inputs):
        if len(infos) > 1 and len(set(infos) - defaults) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        (name,) = set(infos) - defaults if len(infos) > 1 else infos
        inputs = {name: inputs}
    for name in sorted(set(infos) - defaults):
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _named(name, value, infos) for name, value in inputs.items()}


def _from_rows(rows, infos, defaults):
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {show(rows)} Excepting 'instances' to be an list")
    if not rows:
        raise invalid("JSON Value: [] No values in 'instances' array")
    if not _is_object(rows[0]):
        if len(set(infos) - defaults) != 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple "
                "input tensors required as per tensorinfo_map"
            )
        (name,) = set(infos) - defaults
        for number, row in enumerate(rows):
            if _is_object(row):
                raise invalid(
                    f"Expecting value/list but got object at item {number} of input "
                    "list"
                )
        rows = [{name: row} for row in rows]
    columns = {}
    for number, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(
                f"Expecting object but got list at item {number} of input list"
            )
        try:
            arrays = {name: _named(name, value, infos) for name, value in row.items()}
        except tf.errors.InvalidArgumentError as error:
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. Error: "
                f"INVALID_ARGUMENT: {error.message}"
            ) from error
        if set(row) != set(rows[0]) or not set(infos) - defaults <= set(row):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. "
                f"JSON object: {show(row)} keys must be equal to: "
                f"{','.join(sorted(infos))}"
            )
        for name, array in arrays.items():
            columns.setdefault(name, []).append(array)
            first = columns[name][0]
            if array.shape != first.shape:
                raise invalid(
                    f"Failed to process element: {number} key: {name} of 'instances' "
                    f"list. Error: INVALID_ARGUMENT: Expecting shape "
                    f"{_shape(first)} but got: {_shape(array)}"
                )
    return {name: np.stack(arrays) for name, arrays in columns.items()}


def _named(name, value, infos):
    if name not in infos:
        raise invalid(f"JSON object: does not have named input: {name}")
    return to_array(value, tf.dtypes.as_dtype(infos[name].dtype), name)


def _scalar(value, dtype):
    """One value that is no list, checked to be of a type."""
    if dtype == tf.string:
        if isinstance(value, str):
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                raise invalid(
                    "JSON Parse error: The surrogate pair in string is invalid."
                ) from error
        if _is_b64(value):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError) as error:
                raise invalid("Unable to base64 decode") from error
        if isinstance(value, dict):
            raise invalid(
                f"JSON Value: {show(value)} not formatted correctly for base64 data"
            )
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass  # to Python a number, to JSON none
    elif dtype in INTEGERS:
        if isinstance(value, int) and dtype.min <= value <= dtype.max:
            return value
    elif dtype.is_floating and isinstance(value, int | float):
        return float(value)
    raise invalid(
        f"JSON Value: {show(value)} Type: {type(value).__name__} is not of expected "
        f"type: {_kind(dtype)}"
    )


def _text(content, name):
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(content).decode()}
    return content.decode(errors="replace")


def _is_b64(value):
    return (
        isinstance(value, dict) and set(value) == {"b64"} and type(value["b64"]) is str
    )


def _is_object(value):
    return isinstance(value, dict) and not _is_b64(value)


def _kind(dtype):
    return tf.dtypes.as_dtype(dtype).name


def _shape(array):
    return f"[{','.join(map(str, array.shape))}]"
