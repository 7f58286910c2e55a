"""Writes weight files of PyTorch without it, good ones and others."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from unittest import mock

import numpy as np

from keras_parti.weight_files.torch_file import MAGIC, VERSION


class Storage(collections.namedtuple("Storage", "dtype key values")):
    """Stands for a storage of PyTorch; `dtype` is one of `NAMES`."""


def _rebuild_tensor_v2():
    raise AssertionError("only its name is of use")


# The names of PyTorch that a weight file mentions, for the pickler to find.
torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
MODULES = {"torch": torch, "torch._utils": inner}
DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "BFloat16Storage": "<u2",
}
NAMES = {name: type(name, (), {"__module__": "torch"}) for name in DTYPES}
torch.__dict__.update(NAMES)
_rebuild_tensor_v2.__module__ = "torch._utils"
inner._rebuild_tensor_v2 = _rebuild_tensor_v2


class Tensor:
    """Pickles as a tensor of PyTorch does."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, {})

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            size = thing.values.size
            return "storage", NAMES[thing.dtype], thing.key, "cpu", size, None
        return None


def pickled(thing):
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, MODULES):
        Pickler(file, protocol=2).dump(thing)
    return file.getvalue()


def tensors_of(weights):
    """Returns tensors, each in a storage of its own, and the storages."""
    tensors, storages = collections.OrderedDict(), []
    for name, array in weights.items():
        array = np.asarray(array)
        known = {dtype: storage for storage, dtype in DTYPES.items()}
        dtype = known.get(array.dtype.newbyteorder("<").str, "FloatStorage")
        storage = Storage(dtype, str(len(storages)), array.ravel("F"))
        storages.append(storage)
        strides = np.cumprod((1, *array.shape))[: array.ndim].tolist()
        tensors[name] = Tensor(storage, 0, array.shape, tuple(strides))
    return tensors, storages


def elements(storage):
    return storage.values.astype(DTYPES[storage.dtype]).tobytes()


def write_stream(path, tensors, storages):
    """Writes the format of PyTorch before 1.6."""
    keys = [storage.key for storage in storages]
    with open(path, "wb") as file:
        for thing in (MAGIC, VERSION, {"little_endian": True}, tensors, keys):
            file.write(pickled(thing))
        for storage in storages:
            file.write(struct.pack("<q", storage.values.size))
            file.write(elements(storage))


def write_zip(path, tensors, storages, compression=zipfile.ZIP_STORED, **more):
    """Writes the format since; `more` are further members of the archive."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(tensors))
        archive.writestr("archive/byteorder", "little")
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", elements(storage))
        for name, data in more.items():
            archive.writestr(name, data)
