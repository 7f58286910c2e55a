"""Tensors of requests and answers: protos as arrays, and arrays as protos."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from keras_parti.serving.refusals import invalid

# A tensor of few bytes may claim any shape: its last value fills the rest. One of more
# elements than this and than its message has bytes is a bomb, and refused before
# memory is asked for.
MAX_FILLED = 1 << 20

# The types of what exported models take, as arrays, and where they stand in a proto.
PLAIN = {
    types_pb2.DT_FLOAT: (np.float32, "float_val"),
    types_pb2.DT_INT32: (np.int32, "int_val"),
    types_pb2.DT_INT64: (np.int64, "int64_val"),
    types_pb2.DT_STRING: (object, "string_val"),
}

# Where a TensorProto carries numbers of a kind when it is written field by field.
FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "object": "string_val",
}


def to_array(proto, alias):
    """Reads a request's `TensorProto` as TensorFlow's own C++ parser does.

    Raises:
        tf.errors.InvalidArgumentError: The bytes and the shape do not agree.
    """
    most = max(MAX_FILLED, proto.ByteSize())
    dims = [d.size for d in proto.tensor_shape.dim]
    if min(dims, default=0) >= 0 and math.prod(dims) <= most:
        if (array := plainly(proto, dims)) is not None:
            return array
        try:
            dtype = tf.dtypes.as_dtype(proto.dtype)
            tensor = tf.io.parse_tensor(proto.SerializeToString(), dtype)
            # A scalar string comes back as bytes, whose own NumPy type drops zeros.
            return np.asarray(tensor.numpy(), dtype.as_numpy_dtype)
        except (tf.errors.OpError, TypeError, ValueError, AttributeError):
            pass
    raise invalid(f"tensor parsing error: {alias}")


def plainly(proto, dims):
    """The array of a `TensorProto` that holds each of its values once, or None.

    For these, which is what clients send, calling the parser (0.2 ms an input) costs
    more than all else that a request is read with.
    """
    size, plain = math.prod(dims), PLAIN.get(proto.dtype)
    if plain is None or proto.tensor_shape.unknown_rank:
        return None
    dtype, field = plain
    if not proto.tensor_content:
        values = getattr(proto, field)
        return np.array(values, dtype).reshape(dims) if len(values) == size else None
    if dtype is object or len(proto.tensor_content) != size * dtype().itemsize:
        return None
    # Copied, because a run may write into what it is fed.
    return np.frombuffer(proto.tensor_content, dtype).reshape(dims).copy()


def to_proto(array):
    """Writes numbers into typed fields, as the real server does by default.

    `tf.make_tensor_proto` would put them into `tensor_content`, and a client that
    reads `float_val` alone would work here and fail there.
    """
    array = np.asarray(array)
    kind = tf.string if array.dtype == object else tf.dtypes.as_dtype(array.dtype)
    proto = tensor_pb2.TensorProto(dtype=kind.as_datatype_enum)
    proto.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    dtype, values = array.dtype.name, array.ravel()
    if dtype in ("float16", "bfloat16"):
        values = values.view(np.uint16)
    elif dtype.startswith("complex"):
        values = values.view("float32" if dtype == "complex64" else "float64")
    getattr(proto, FIELDS.get(dtype, "int_val")).extend(values.tolist())
    return proto
