"""Weight files of others give their numbers, or say what is wrong, and run nothing."""

import json
import os
import zipfile

import numpy as np
import pytest
from torch_files import Storage, Tensor, tensors_of, write_stream, write_zip

from keras_parti.weight_files import read_safetensors, read_torch_file

WEIGHTS = {
    "kernel": np.arange(30, dtype="float32").reshape(5, 3, 2),
    "half": np.array([0.5, -2.0], "float16"),
    "double": np.array([[1e300]]),
    "count": np.array(11),
    "none": np.zeros((0, 3), "float32"),
}
WRITERS = (write_stream, write_zip)


class Harm:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def safetensors(path, described, data=b"", length=None):
    head = described if isinstance(described, bytes) else json.dumps(described).encode()
    length = len(head) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + head + data)
    return path


def entry(dtype="F32", shape=(3,), offsets=(0, 12)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def assert_same(read, weights):
    assert read.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


@pytest.mark.parametrize("write", WRITERS)
def test_tensors_return_from_files_of_torch(tmp_path, write):
    write(tmp_path / "w.pt", *tensors_of(WEIGHTS))
    assert_same(read_torch_file(tmp_path / "w.pt"), WEIGHTS)


@pytest.mark.parametrize("write", WRITERS)
def test_a_checkpoint_gives_the_wanted_part_of_its_state(tmp_path, write):
    tensors, storages = tensors_of(WEIGHTS)
    tree = {"epoch": 7, "callbacks": {"best": None}, "state_dict": tensors}
    write(tmp_path / "w.ckpt", tree, storages)
    read = read_torch_file(tmp_path / "w.ckpt", lambda name: "o" in name)
    assert_same(read, {name: WEIGHTS[name] for name in ("double", "count", "none")})


def test_bfloat16_becomes_float32_exactly(tmp_path):
    bits = np.array([0x3F80, 0xC040], "<u2")
    tensors, storages = tensors_of({"x": bits})
    write_zip(tmp_path / "w.pt", tensors, storages)
    expected = {"x": np.array([1, -3], "float32")}
    assert_same(read_torch_file(tmp_path / "w.pt"), expected)
    described = {"x": entry("BF16", (2,), (0, 4)), "__metadata__": {"format": "pt"}}
    path = safetensors(tmp_path / "w.safetensors", described, bits.tobytes())
    assert_same(read_safetensors(path), expected)


@pytest.mark.parametrize("write", WRITERS)
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, write):
    tensors, storages = tensors_of(WEIGHTS)
    tree = {"state_dict": tensors, "callbacks": Harm(tmp_path / "harm")}
    write(tmp_path / "w.pt", tree, storages)
    with pytest.raises(
        ValueError, match=r"asks for `\w+\.mkdir`.*nothing of it was run"
    ):
        read_torch_file(tmp_path / "w.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed, or larger"),
        (
            {"archive/../../harm": b"x"},
            "lies outside of its folder: archive/../../harm",
        ),
        ({"/harm": b"x"}, "lies outside of its folder"),
        ({"other/data.pkl": b"x"}, "lies outside of its folder: other/data.pkl"),
        ({"archive/byteorder": b"big"}, "not little-endian"),
        ({"archive/data.pkl": b"\x80\x02"}, "no readable weight file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_of_another_kind_is_refused(tmp_path, changes, message):
    write_zip(tmp_path / "w.pt", *tensors_of(WEIGHTS), **changes)
    with pytest.raises(ValueError, match=message):
        read_torch_file(tmp_path / "w.pt")


@pytest.mark.parametrize("key", ["../data.pkl", "9", "/etc/passwd"])
def test_a_storage_is_a_member_of_its_archive(tmp_path, key):
    storage = Storage("FloatStorage", key, np.arange(3.0))
    write_zip(tmp_path / "w.pt", {"x": Tensor(storage, 0, (3,), (1,))}, [])
    with pytest.raises(ValueError, match=f"its archive holds no archive/data/{key}"):
        read_torch_file(tmp_path / "w.pt")


def test_a_storage_has_the_bytes_that_were_announced(tmp_path):
    tensors, storages = tensors_of({"x": np.arange(3.0, dtype="float32")})
    short = [s._replace(values=s.values[:2]) for s in storages]
    write_zip(tmp_path / "w.pt", tensors, short)
    with pytest.raises(ValueError, match=r"size=3.* has 8 bytes in the archive"):
        read_torch_file(tmp_path / "w.pt")


def test_many_windows_on_one_storage_take_no_memory(tmp_path):
    storage = Storage("FloatStorage", "0", np.arange(1_000.0))
    window = Tensor(storage, 0, (1_000,), (1,))
    write_zip(tmp_path / "w.pt", {f"{i}": window for i in range(50)}, [storage])
    arrays = read_torch_file(tmp_path / "w.pt")
    assert all(np.shares_memory(arrays["0"], array) for array in arrays.values())


@pytest.mark.parametrize("tree", [[1], {"x": 1}, {"state_dict": {3: 4}}, {}])
def test_what_holds_no_tensors_by_name_gives_none(tmp_path, tree):
    write_zip(tmp_path / "w.pt", tree, [])
    if tree == {}:
        assert read_torch_file(tmp_path / "w.pt") == {}
    else:
        with pytest.raises(ValueError, match="no readable weight file"):
            read_torch_file(tmp_path / "w.pt")


@pytest.mark.parametrize("reader", [read_torch_file, read_safetensors])
def test_a_torn_file_is_refused_wherever_it_was_cut(tmp_path, reader):
    path = tmp_path / "w.file"
    if reader is read_torch_file:
        write_zip(path, *tensors_of({"x": np.arange(3.0, dtype="float32")}))
    else:
        safetensors(path, {"x": entry()}, bytes(12))
    assert list(reader(path)) == ["x"]
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"w\.file is no "):
            reader(path)


def test_tensors_return_from_safetensors(tmp_path):
    kinds = {"F32": "float32", "F16": "float16", "F64": "float64", "I64": "int64"}
    expected, described, data = {}, {}, b""
    for i, (kind, dtype) in enumerate(kinds.items()):
        array = np.arange(6, dtype=dtype).reshape(2, 3) + i
        bounds = (len(data), len(data) + array.nbytes)
        expected[kind], described[kind] = array, entry(kind, (2, 3), bounds)
        data += array.tobytes()
    path = safetensors(tmp_path / "w.safetensors", described, data)
    assert_same(read_safetensors(path), expected)
    only = read_safetensors(path, lambda name: name == "F64")
    assert_same(only, {"F64": expected["F64"]})


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"x": entry("F8_E4M3", (12,))}, "x is F8_E4M3; known are F64"),
        ({"x": entry("F16")}, "does not fill bytes 0 to 12"),
        ({"x": entry(shape=(10**15,))}, "does not fill bytes 0 to 12"),
        ({"x": entry(shape=(-3,))}, r"has the shape \[-3\]"),
        ({"x": entry(shape=(3.0,))}, r"has the shape \[3.0\]"),
        ({"x": entry(offsets=(4, 16))}, "does not fill bytes 4 to 16, behind 0"),
        ({"x": entry(offsets=(0, 12)), "y": entry(offsets=(0, 12))}, "behind 12"),
        ({"x": entry(shape=(2,), offsets=(0, 8))}, "8 bytes, the file has 12"),
        ({"x": entry(offsets=(12,))}, "no safetensors file"),
        ({"x": {"dtype": "F32"}}, "no safetensors file"),
        ([1], "no safetensors file"),
        (b'{"x": 1, "x": 2}', "a name comes twice"),
        (b"[" * 100_000, "no safetensors file"),
        (b"\xff\xfe", "no safetensors file"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, described, message):
    path = safetensors(tmp_path / "w.safetensors", described, bytes(12))
    with pytest.raises(ValueError, match=message):
        read_safetensors(path)


@pytest.mark.parametrize("length", [0, 2**62, 101])
def test_an_announced_length_is_not_believed(tmp_path, length):
    path = safetensors(tmp_path / "w.safetensors", b"{}", bytes(90), length)
    with pytest.raises(ValueError, match=f"a description of {length} bytes"):
        read_safetensors(path)
