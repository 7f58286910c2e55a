"""What comes before a training reads a set of any size in memory that has a bound."""

import logging

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

from keras_parti.training import preparation


def test_captions_are_read_as_a_vocabulary_asks_for_them(monkeypatch):
    read, trained = [], []

    def load(name, split):
        for number in range(1_009):
            read.append(number)
            yield {"captions": [f"caption {number}".encode()], "synonyms": [b"other"]}

    def train_vocabulary(captions, path, size):
        trained.append(next(captions))
        assert len(read) == 1
        trained.extend(captions)

    monkeypatch.setattr(preparation.data, "load", load)
    monkeypatch.setattr(preparation, "train_vocabulary", train_vocabulary)
    assert preparation.train_set_vocabulary("any", "nowhere", 300) == 2 * 1_009
    assert trained[:3] == ["caption 0", "other", "caption 1"]
    assert len(trained) == 2 * 1_009


def photographs(folder, captions):
    """Makes a folder of one picture for each name, with a caption where it has one."""
    folder.mkdir()
    for number, (name, caption) in enumerate(captions.items()):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / name)
        if caption:
            (folder / name).with_suffix(".txt").write_text(caption)
    return folder


def test_pictures_without_captions_are_counted_and_named(tmp_path, caplog):
    captions = {"a.png": "a cat", "b.png": "a dog", "c.png": "", "d.png": "a hen"}
    folder = photographs(tmp_path / "photos", captions)
    known = preparation.data.splits(str(folder))["train"]
    with caplog.at_level(logging.WARNING):
        count = preparation.train_set_vocabulary(
            str(folder), tmp_path / "v.model", 2_000
        )
    assert count == known - 1
    assert f"1 of {known} pictures have no caption: c.png" in caplog.text


def test_a_folder_without_captions_is_told_where_they_belong(tmp_path):
    folder = photographs(tmp_path / "photos", {"a.png": "", "b.png": "", "c.png": ""})
    with pytest.raises(ValueError, match=rf"of {folder} has a caption.*cat\.txt"):
        preparation.train_set_vocabulary(str(folder), tmp_path / "v.model", 300)
