"""Reads the tensors of a PyTorch weight file without PyTorch and without running it.

The format (PyTorch before 1.6): three pickles (magic number, version, machine), a
pickle of the tensors' names, shapes and storage keys, a pickle of the list of keys,
then for each key the number of its elements (int64) and the elements themselves.

A pickle may name any function of the machine to be called. Here the unpickler knows
the four names that a weight file needs, and refuses all others.
"""

import collections
import math
import pickle
from typing import NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


class _Tensor(NamedTuple):
    """A window on a storage; inert, so that no pickle can do anything with it."""

    storage: tuple
    offset: int
    shape: tuple
    strides: tuple


def _rebuild(storage, offset, shape, strides, *_):
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise ValueError(
                f"A weight file asks for `{module}.{name}`, which tensors do not need: "
                f"it was not read. Allowed: {[f'{m}.{n}' for m, n in ALLOWED]}"
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or dtype not in ("<f4", "<i8"):
            raise ValueError(f"A weight file holds an unknown storage: {pid!r}")
        return key, dtype, size


def read_torch_file(path):
    """Reads a PyTorch `state_dict` of float and integer tensors.

    Args:
        path: str or path. A file of the format above, little-endian.

    Returns:
        A dict of name to NumPy array, float32 or int64.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, a damaged file, or a pickle that names anything but
            tensors.
    """
    with open(path, "rb") as file:
        try:
            head = [_Unpickler(file).load() for _ in range(5)]
            magic, version, machine, tensors, keys = head
            if (magic, version) != (MAGIC, VERSION) or not machine["little_endian"]:
                raise ValueError(f"magic number {magic!r}, version {version!r}")
            used = [t.storage for t in tensors.values()]
            dtypes = {key: (dtype, size) for key, dtype, size in used}
            storages = {key: _read_storage(file, *dtypes[key]) for key in keys}
            return {n: _window(storages, tensor) for n, tensor in tensors.items()}
        except (pickle.UnpicklingError, ValueError, *_DAMAGE) as error:
            raise ValueError(f"{path} is no readable weight file: {error}") from error


# What a torn or foreign file provokes in the unpickler and in the lines above.
_DAMAGE = (EOFError, KeyError, IndexError, TypeError, AttributeError, UnicodeError)


def _read_storage(file, dtype, size):
    count = np.frombuffer(file.read(8), "<i8")[0]
    if count != size:
        raise ValueError(f"a storage of {count} elements, {size} were announced")
    return np.frombuffer(file.read(size * np.dtype(dtype).itemsize), dtype, size)


def _window(storages, tensor):
    """A copy of the elements at `offset + sum(index * stride)` of a storage."""
    storage = storages[tensor.storage[0]]
    last = tensor.offset + sum(
        (n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    extents = (tensor.offset, *tensor.shape, *tensor.strides)
    # The count is checked too: strides of 0 could ask for any amount of memory.
    if min(extents) < 0 or max(last + 1, math.prod(tensor.shape)) > storage.size:
        raise ValueError(f"{tensor} leaves its storage of {storage.size} elements")
    return np.lib.stride_tricks.as_strided(
        storage[tensor.offset :],
        tensor.shape,
        [step * storage.itemsize for step in tensor.strides],
    ).copy()
