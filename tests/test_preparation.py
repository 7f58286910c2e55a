"""What comes before a training reads a set of any size in memory that has a bound."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

from keras_parti import cli
from keras_parti.cli import train
from keras_parti.text import train_vocabulary
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


def test_a_vocabulary_takes_no_other_ones_place(tmp_path, monkeypatch, capsys):
    """A Parti that was trained on the one before could not be exported any more."""

    def train_set_vocabulary(name, path, size):
        train_vocabulary([f"{name} fox", f"{name} owl"] * 9, path, size)
        return 18

    def line(data):
        return f"train vocab --data {data} --size 300 --workdir {tmp_path}/v"

    def run(data):
        return cli.main(line(data).split()), capsys.readouterr()

    monkeypatch.setattr(train, "train_set_vocabulary", train_set_vocabulary)
    path = tmp_path / "v" / "vocabulary.model"
    status, said = run("red")
    assert (status, f"Wrote {path}: " in said.out) == (0, True)
    assert "Next: keras-parti train tokenizer --data red " in said.out
    content = path.read_bytes()
    status, said = run("red")
    assert (status, f"Already there is {path}: " in said.out) == (0, True)
    status, said = run("blue")
    assert (status, said.out) == (2, "")
    assert "Choose another --workdir, or delete it." in said.err
    noted = (tmp_path / "v" / "commands.txt").read_text(encoding="utf-8")
    assert noted.splitlines() == [f"keras-parti {line('red')}"]
    assert path.read_bytes() == content


def test_a_refused_vocabulary_leaves_no_folder(tmp_path):
    line = f"train vocab --data no/such_set --workdir {tmp_path}/v"
    assert cli.main(line.split()) == 2
    assert not list(tmp_path.iterdir())


def test_encode_counts_in_words_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        train.ViTVQGAN,
        "load_dir",
        lambda path: SimpleNamespace(fingerprint=lambda: "f"),
    )
    monkeypatch.setattr(
        train,
        "encode_set",
        lambda *args: {"train": (2, 0, {}), "validation": (1, 1, {})},
    )
    line = f"encode --tokenizer {tmp_path} --data x --out {tmp_path}/tokens"
    assert cli.main(line.split()) == 0
    said = capsys.readouterr().out
    assert "train: 2 pictures encoded, 0 were there." in said
    assert "validation: 1 picture encoded, 1 was there." in said
    assert f"Next: keras-parti train parti --data {tmp_path}/tokens " in said
