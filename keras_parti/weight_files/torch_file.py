"""Reads the tensors of a PyTorch weight file without PyTorch and without running it.

Two formats. Since PyTorch 1.6: a zip, not compressed, in which `data.pkl` is a pickle
of the tensors' names, shapes and storage keys, and `data/KEY` a storage's elements.
Before: three pickles (magic number, version, machine), that pickle of the tensors, a
pickle of the list of keys, then for each key the number of its elements (int64) and the
elements themselves.
"""

import collections
import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from keras_parti.weight_files.storage import BFLOAT16, itemsize, to_array
from keras_parti.weight_files.unpickler import DAMAGE, NamedOnly

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


class _Storage(NamedTuple):
    """A run of numbers in the file."""

    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A window on a storage; inert, so that no pickle can do anything with it."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def _rebuild(storage, offset, shape, strides, *_):
    if not isinstance(storage, _Storage):
        raise ValueError(f"a tensor stands on {storage!r}, not on a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_):
    return tensor


_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(NamedOnly):
    def persistent_load(self, pid):
        kind, dtype, key, _, size, *_ = pid
        known = kind == "storage" and dtype in _DTYPES.values()
        if not known or type(key) is not str or type(size) is not int or size < 0:
            raise ValueError(f"A weight file holds an unknown storage: {pid!r}")
        return _Storage(key, dtype, size)


def read_torch_file(
    path: str | os.PathLike, wanted: Callable[[str], bool] | None = None
) -> dict[str, np.ndarray]:
    """Reads a PyTorch `state_dict`, or the one inside a checkpoint of Lightning.

    Args:
        path: str or path. A file of one of the formats above, little-endian.
        wanted: function of a tensor's name, whether it is read. None: all are.

    Returns:
        A dict of name to array, to be read only, in the file's dtype; bfloat16 becomes
        float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, a damaged file, or a pickle that names anything but
            tensors.
    """
    with open(path, "rb") as file:
        try:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            tensors, storages = (_read_zip if zipped else _read_stream)(file, wanted)
            return {n: _window(storages, tensor) for n, tensor in tensors.items()}
        except (*DAMAGE, *_ZIP_DAMAGE) as error:
            words = str(error) or type(error).__name__
            raise ValueError(f"{path} is no readable weight file: {words}") from error


# What zipfile raises besides: of what is damaged, encrypted, or packed in unknown ways.
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def _state(tree, wanted):
    """Returns the wanted tensors of what was pickled, by name."""
    tree = tree.get("state_dict", tree)
    for name, tensor in tree.items():
        if type(name) is not str or not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
    return {n: t for n, t in tree.items() if wanted is None or wanted(n)}


def _read_zip(file, wanted):
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        root = PurePosixPath(min(members, default="")).parts[:1]
        for name, info in members.items():
            parts = PurePosixPath(name).parts
            if ".." in parts or parts[:1] != root or root == ("/",):
                raise ValueError(f"a member lies outside of its folder: {name}")
            # Before it is read: a few bytes can announce, or unfold into, any amount.
            announced = max(info.file_size, info.compress_size)
            if info.compress_type != zipfile.ZIP_STORED or announced > size:
                raise ValueError(f"{name} is compressed, or larger than the file")

        def read(name):
            if (full := "/".join((*root, name))) not in members:
                raise ValueError(f"its archive holds no {full}")
            return archive.read(members[full])

        order = "/".join((*root, "byteorder"))
        if order in members and read("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")
        tree = _Unpickler(io.BytesIO(read("data.pkl")), ALLOWED).load()
        tensors = _state(tree, wanted)
        storages = {}
        for storage in {tensor.storage for tensor in tensors.values()}:
            data = read(f"data/{storage.key}")
            if len(data) != storage.size * itemsize(storage.dtype):
                raise ValueError(f"{storage} has {len(data)} bytes in the archive")
            storages[storage] = to_array(data, storage.dtype)
    return tensors, storages


def _read_stream(file, wanted):
    head = [_Unpickler(file, ALLOWED).load() for _ in range(5)]
    magic, version, machine, tree, keys = head
    if (magic, version) != (MAGIC, VERSION) or not machine["little_endian"]:
        raise ValueError(f"magic number {magic!r}, version {version!r}")
    every = {t.storage.key: t.storage for t in _state(tree, None).values()}
    storages = {every[key]: _read_storage(file, every[key]) for key in keys}
    return _state(tree, wanted), storages


def _read_storage(file, storage):
    count = np.frombuffer(file.read(8), "<i8")[0]
    announced = storage.size * itemsize(storage.dtype)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if count != storage.size or announced > left:
        raise ValueError(f"{storage} has {count} elements, and {left} bytes for them")
    return to_array(file.read(announced), storage.dtype)


def _window(storages, tensor):
    """Returns the elements at `offset + sum(index * stride)` of a storage.

    No copy is made: a small file may hold many windows on all of a storage.
    """
    storage = storages[tensor.storage]
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
        writeable=False,
    )
