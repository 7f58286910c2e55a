"""The kinds of numbers in weight files."""

import numpy as np

# NumPy has no bfloat16: the upper half of a float32.
BFLOAT16 = "bfloat16"


def itemsize(dtype):
    """Returns the bytes of an element of one of NumPy's dtypes, or `BFLOAT16`."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def to_array(data, dtype):
    """Returns bytes as a flat array, bfloat16 as float32, which holds it exactly."""
    if dtype == BFLOAT16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, dtype)
