"""Reads `.safetensors`: a length, a description in JSON, the numbers."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_parti.weight_files.storage import BFLOAT16, itemsize, to_array

# The format's own limit on its description, in bytes.
MAX_HEADER = 100_000_000
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(
    path: str | os.PathLike, wanted: Callable[[str], bool] | None = None
) -> dict[str, np.ndarray]:
    """Reads a file of safetensors.

    Args:
        path: str or path.
        wanted: function of a tensor's name, whether it is read. None: all are.

    Returns:
        A dict of name to array, in the file's dtype; bfloat16 becomes float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or of another format.

    References:
        - [safetensors](https://github.com/huggingface/safetensors), section "Format"
    """
    with open(path, "rb") as file:
        try:
            size = Path(path).stat().st_size
            length = int.from_bytes(file.read(8), "little")
            # Before it is read: a few bytes can announce any amount.
            if not 0 < length <= min(size - 8, MAX_HEADER):
                raise ValueError(f"a description of {length} bytes in {size}")
            described = json.loads(file.read(length), object_pairs_hook=_once)
            described.pop("__metadata__", None)
            _check_layout(described, size - 8 - length)
            arrays = {}
            for name, entry in described.items():
                if wanted is None or wanted(name):
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + begin)
                    array = to_array(file.read(end - begin), DTYPES[entry["dtype"]])
                    arrays[name] = array.reshape(entry["shape"])
            return arrays
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
        except RecursionError as error:
            raise ValueError(f"{path} is no safetensors file: nested JSON") from error


def _once(pairs):
    """Makes a dict of pairs; a name that comes twice would mean either of two."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"a name comes twice among {[name for name, _ in pairs]}")
    return made


def _check_layout(described, size):
    """Raises `ValueError` unless tensors fill the data, one behind the other."""
    end = 0
    for name, entry in sorted(
        described.items(), key=lambda item: item[1]["data_offsets"]
    ):
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype not in DTYPES:
            raise ValueError(f"{name} is {dtype}; known are {', '.join(DTYPES)}")
        if not all(type(n) is int and n >= 0 for n in (*shape, *entry["data_offsets"])):
            raise ValueError(f"{name} has the shape {shape} at {entry['data_offsets']}")
        begin, stop = entry["data_offsets"]
        if begin != end or stop - begin != math.prod(shape) * itemsize(DTYPES[dtype]):
            raise ValueError(
                f"{name}, {dtype} of shape {shape}, does not fill bytes {begin} to "
                f"{stop}, behind {end}"
            )
        end = stop
    if end != size:
        raise ValueError(f"its tensors have {end} bytes, the file has {size} for them")
