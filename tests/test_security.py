"""What SECURITY.md promises, where no other test holds it; and that one does."""

import ast
import io
import pickle
import re
import tarfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_parti
from keras_parti.data import arrays, emoji_source
from keras_parti.models import perceptual_weights

ROOT = Path(__file__).parents[1]
PROMISES = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
RAN = []


class Bomb:
    def __reduce__(self):
        return RAN.append, (1,)


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(test_\w+\.py::\w+)`", PROMISES)))
)
def test_every_promise_has_its_test(name):
    file, test = name.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert test in {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}


def test_no_promise_is_without_a_test():
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PROMISES, re.M)[1:]
    assert len(rows) > 10
    assert all(re.search(r"`test_\w+\.py::\w+`", held_by) for _, held_by in rows)


def called(tree):
    """Pairs of a called function's name and its keyword arguments that are names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            yield ast.unparse(node.func), keywords


def test_the_library_never_opens_the_doors_that_run_code():
    shut = {"eval", "exec", "pickle.load", "pickle.loads", "np.lib.format.open_memmap"}
    shut |= {"os.system", "os.popen", "keras.config.enable_unsafe_deserialization"}
    for path in Path(keras_parti.__file__).parent.rglob("*.py"):
        for name, keywords in called(ast.parse(path.read_text(encoding="utf-8"))):
            assert name not in shut, path
            assert not name.endswith((".extractall", ".unpack_archive")), path
            if name == "np.load":
                assert keywords["allow_pickle"] == "False", path
            assert keywords.get("safe_mode", "True") == "True", path
            assert keywords.get("shell", "False") == "False", path


def test_pickled_arrays_are_refused_and_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        arrays.load_npz(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"damaged or no \.npz"):
        arrays.load_npz(tmp_path / "b.npz")
    assert RAN == []


def test_a_keras_file_with_code_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.models.load_model(tmp_path / "model.keras")


def test_arrays_that_unfold_into_more_than_the_memory_are_refused(
    tmp_path, monkeypatch
):
    arrays.write_npz(tmp_path / "a.npz", {"image": np.zeros((70, 99, 99, 3), "uint8")})
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    assert arrays.load_npz(tmp_path / "a.npz")["image"].shape == (70, 99, 99, 3)
    monkeypatch.setattr(arrays, "MEMORY", 2_000_000)
    with pytest.raises(ValueError, match=r"take 2,058,\d{3} bytes, of 2,000,000"):
        arrays.load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("how", ["raw", "linked", "virtual"])
def test_weights_that_lie_in_another_file_are_not_read(tmp_path, how):
    secret, path = tmp_path / "secret", tmp_path / "vgg16.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((3, 3, 3, 64), "f4")
    with h5py.File(path, "w") as file:
        group = file.create_group("block1_conv1")
        shape = (3, 3, 3, 64)
        if how == "raw":
            group.create_dataset("w", shape, "f4", external=[(str(secret), 0, 6912)])
        elif how == "linked":
            file["block1_conv1/w"] = h5py.ExternalLink(str(secret), "x")
        else:
            layout = h5py.VirtualLayout(shape, "f4")
            layout[...] = h5py.VirtualSource(str(secret), "x", shape)
            group.create_virtual_dataset("w", layout)
        group["b"] = np.zeros(64, "f4")
    with pytest.raises(ValueError, match="is no VGG16 of a known form") as caught:
        perceptual_weights.read_weights(path)
    if how != "linked":  # which the reader does not even see
        assert "another file; none was read" in str(caught.value)


def package(path, *members):
    """Writes a package whose pictures are these (`TarInfo`, bytes)."""
    with tarfile.open(path, "w:gz") as file:
        for member, content in members:
            member.name = f"package/{emoji_source.PACKAGES[0].pictures}/{member.name}"
            file.addfile(member, io.BytesIO(content))
    return emoji_source.read_archive(emoji_source.PACKAGES[0], path)


def test_links_in_a_package_are_not_followed(tmp_path):
    good, links = tarfile.TarInfo("1f34e.png"), []
    good.size = 3
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        link = tarfile.TarInfo(f"{kind.decode()}.png")
        link.type, link.linkname = kind, "/etc/passwd"
        links.append((link, b""))
    files = package(tmp_path / "a.tgz", (good, b"png"), *links)
    assert list(files.values()) == [b"png"]


def test_a_large_member_of_a_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji_source, "MAX_FILE_BYTES", 4)
    large = tarfile.TarInfo("1f34e.png")
    large.size = 5
    with pytest.raises(ValueError, match="has 5 bytes, at most 4 are read"):
        package(tmp_path / "a.tgz", (large, b"large"))


def test_servers_listen_to_this_machine_alone(tmp_path):
    from keras_parti.cli.parser import build_parser
    from keras_parti.serving.server import Server

    assert Server(tmp_path).host == "127.0.0.1"
    assert build_parser().parse_args(["serve", str(tmp_path)]).host == "127.0.0.1"
