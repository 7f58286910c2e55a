"""What comes before a training reads a set of any size in memory that has a bound."""

import pytest

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
