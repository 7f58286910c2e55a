"""The photographs are those of the catalogue, and none is in both splits."""

import hashlib
import io
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from keras_parti.data import photograph_source as source
from keras_parti.data import photographs
from keras_parti.data.photograph_catalog import PHOTOGRAPHS, Photograph


def jpeg(width, height, grey):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (grey,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


# Three photographs: 1, 2 · 1 + 2 · 1 and 1 crops.
CONTENTS = {
    "usr/share/a.jpg": jpeg(300, 290, 10),
    "usr/share/b.jpg": jpeg(1100, 600, 130),
    "pkg/c.jpg": jpeg(256, 256, 250),
}


def row(package, path, split):
    digest = hashlib.sha256(CONTENTS[path]).hexdigest()
    name = f"photograph {Path(path).stem}"
    return Photograph(package, path, name, "A. Nobody", "CC0-1.0", split, digest)


CATALOGUE = (
    row("mate-backgrounds", "usr/share/a.jpg", "train"),
    row("mate-backgrounds", "usr/share/b.jpg", "validation"),
    row("scikit-image", "pkg/c.jpg", "train"),
)


def unpacked(folder):
    for photo in CATALOGUE:
        path = folder / photo.package / photo.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[photo.path])


def wheel(folder):
    with zipfile.ZipFile(folder / "scikit_image-9.9-cp311-any.whl", "w") as archive:
        archive.writestr("pkg/c.jpg", CONTENTS["pkg/c.jpg"])
        archive.writestr("pkg/other.py", "raise SystemExit")


def read(tmp_path):
    return dict(source.read_photographs(tmp_path / "fetched", CATALOGUE))


@pytest.fixture
def given(tmp_path, monkeypatch):
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv(source.FOLDER_VARIABLE, str(folder))
    return folder


def test_the_catalogue_is_of_one_mind():
    paths = [(photo.package, photo.path) for photo in PHOTOGRAPHS]
    assert len(set(paths)) == len(paths) == 43
    assert len({photo.sha256 for photo in PHOTOGRAPHS}) == 43
    assert len({photo.name for photo in PHOTOGRAPHS}) == 43
    for photo in PHOTOGRAPHS:
        assert re.fullmatch("[0-9a-f]{64}", photo.sha256)
        assert photo.split in ("train", "validation")
        assert photo.author
        assert photo.licence


def test_packages_are_read_unpacked_or_as_archives(given, tmp_path):
    unpacked(given)
    assert {p.path: c for p, c in read(tmp_path).items()} == CONTENTS
    shutil.rmtree(given / "scikit-image")
    wheel(given)
    assert {p.path: c for p, c in read(tmp_path).items()} == CONTENTS


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debian_packages_are_read(given, tmp_path):
    unpacked(given)
    folder = given / "mate-backgrounds"
    (folder / "DEBIAN").mkdir()
    (folder / "DEBIAN" / "control").write_text(
        "Package: mate-backgrounds\nVersion: 9\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: pictures\n"
    )
    archive = given / "mate-backgrounds_9_all.deb"
    subprocess.run(
        ["dpkg-deb", "--build", folder, archive], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(folder)
    assert {p.path: c for p, c in read(tmp_path).items()} == CONTENTS


def test_another_photograph_under_the_name_is_refused(given, tmp_path):
    unpacked(given)
    (given / "scikit-image" / "pkg" / "c.jpg").write_bytes(jpeg(256, 256, 251))
    with pytest.raises(ValueError, match=r"c\.jpg .*not the photograph.*SHA-256"):
        read(tmp_path)


def test_what_is_missing_is_named_with_what_to_do(given, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no mate-backgrounds.*apt-get download"
    ):
        read(tmp_path)
    unpacked(given)
    (given / "scikit-image" / "pkg" / "c.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"scikit-image holds no pkg/c\.jpg"):
        read(tmp_path)
    shutil.rmtree(given / "scikit-image")
    (given / "scikit_image-9.9-any.whl").write_text("no archive")
    with pytest.raises(ValueError, match="damaged archive"):
        read(tmp_path)


def test_without_a_client_or_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(source.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(source.shutil, "which", lambda name: None)
    words = r"`apt-get`.*not installed.*KERAS_PARTI_PHOTOGRAPHS"
    with pytest.raises(FileNotFoundError, match=words):
        read(tmp_path)
    monkeypatch.undo()
    monkeypatch.delenv(source.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(source, "_command", lambda package: ["false"])
    with pytest.raises(OSError, match=r"`false` failed.*KERAS_PARTI_PHOTOGRAPHS"):
        read(tmp_path)
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.fixture
def prepared(given, tmp_path, monkeypatch):
    unpacked(given)
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", CATALOGUE)

    def prepare(config):
        builder = photographs.Photographs(config=config, data_dir=tmp_path / "tfds")
        builder.download_and_prepare()
        return {
            split: list(tfds.as_numpy(builder.as_dataset(split)))
            for split in ("train", "validation")
        }

    return prepare


def test_crops_of_a_photograph_stay_in_its_split(prepared):
    splits = prepared("crops")
    assert len(splits["train"]) == 2
    assert len(splits["validation"]) == 1 + 3 * 2
    for split, examples in splits.items():
        names = {p.name for p in CATALOGUE if p.split == split}
        assert {e["name"].decode() for e in examples} == names
        for example in examples:
            assert example["image"].shape == (256, 256, 3)
            assert example["credit"] == b"A. Nobody, CC0-1.0"
    assert len({e["key"] for e in splits["validation"]}) == 7


def test_whole_photographs_keep_their_shape(prepared):
    splits = prepared("whole")
    (held_out,) = splits["validation"]
    assert held_out["image"].shape == (600, 1100, 3)
    shapes = sorted(e["image"].shape for e in splits["train"])
    assert shapes == [(256, 256, 3), (290, 300, 3)]


def test_crops_do_not_overlap_and_cover_most_of_a_photograph():
    for side in (256, 300, 511, 512, 700, 1640):
        starts = photographs.offsets(side)
        assert starts[0] >= 0
        assert starts[-1] + 256 <= side
        assert (np.diff(starts) >= 256).all()
        assert len(starts) == side // 256
    sizes = {p.size for _, p in photographs.crops(Image.new("RGB", (1638, 1024)))}
    assert sizes == {(256, 256)}
    assert len(list(photographs.crops(Image.new("RGB", (1638, 1024))))) == 1 + 6 + 24
