"""Runs on a mesh: killed, full disk, another mesh, another config, exported."""

import dataclasses
import errno
import functools
import signal

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from test_training_parti import cache, vocabulary  # noqa: E402, F401

from keras_parti.mesh import Layout  # noqa: E402
from keras_parti.mesh import training as mesh_training  # noqa: E402
from keras_parti.mesh.checkpoints import (  # noqa: E402
    read_checkpoint,
    write_checkpoint,
)
from keras_parti.mesh.training import hidden, train_on_mesh  # noqa: E402
from keras_parti.mesh.variables import arrays_of  # noqa: E402
from keras_parti.models import Parti  # noqa: E402
from keras_parti.training.workdir import check_config  # noqa: E402

CONFIG = Parti.preset_config("parti_tiny", decoder_layers=1, dropout_rate=0.0)


def some_arrays(value):
    return {a.name: np.full(a.shape, value, a.dtype) for a in arrays_of(CONFIG)}


def test_the_newest_checkpoint_that_is_whole_is_read(tmp_path):
    assert read_checkpoint(tmp_path, CONFIG) is None
    for done in (2, 4, 6):
        write_checkpoint(tmp_path, done, some_arrays(done))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "00000004.npz",
        "00000006.npz",
    ]
    done, arrays = read_checkpoint(tmp_path, CONFIG)
    assert done == 6
    assert all((array == 6).all() for array in arrays.values())
    newest = tmp_path / "00000006.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert read_checkpoint(tmp_path, CONFIG)[0] == 4


def test_a_disk_that_fills_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 2, some_arrays(2))

    def fill(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, 4, some_arrays(4))
    assert [path.name for path in tmp_path.iterdir()] == ["00000002.npz"]
    assert read_checkpoint(tmp_path, CONFIG)[0] == 2


def test_checkpoints_of_another_shape_are_refused_by_name(tmp_path):
    write_checkpoint(tmp_path, 2, some_arrays(2))
    other = dataclasses.replace(CONFIG, mlp_dim=25)
    with pytest.raises(ValueError, match=r"No checkpoint .* `encoder_.*25.*Received"):
        read_checkpoint(tmp_path, other)


def test_texts_are_hidden_and_ids_mixed_at_their_rates():
    config = dataclasses.replace(
        CONFIG, condition_dropout_rate=0.25, image_mixing_rate=0.5
    )
    random = np.random.default_rng(0)
    ids = {
        "text_ids": random.integers(4, 300, (4000, 11)),
        "image_ids": random.integers(0, 23, (4000, 9)),
    }
    found = hidden(ids, config, (1, 2))
    empty = (found["text_ids"] == [2, 3] + [0] * 9).all(axis=1)
    assert empty.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(found["text_ids"][~empty], ids["text_ids"][~empty])
    np.testing.assert_array_equal(found["image_ids"], ids["image_ids"])
    before = found["before_ids"]
    assert (before[:, 0] == 23).all()
    # Half of the pictures are mixed, half of their ids, and 1 in 23 is the same.
    changed = before[:, 1:] != ids["image_ids"][:, :-1]
    assert changed.mean() == pytest.approx(0.25 * 22 / 23, abs=0.02)
    again = hidden(ids, config, (1, 2))["before_ids"]
    np.testing.assert_array_equal(again, before)
    assert (hidden(ids, config, (1, 3))["before_ids"] != before).any()


def test_nothing_is_hidden_at_a_rate_of_zero():
    config = dataclasses.replace(CONFIG, condition_dropout_rate=0.0)
    ids = {"text_ids": np.ones((2, 11), int), "image_ids": np.ones((2, 9), int)}
    found = hidden(ids, config, (0, 0))
    np.testing.assert_array_equal(found["text_ids"], ids["text_ids"])
    assert found["before_ids"][0].tolist() == [23] + [1] * 8


def run(folder, tokens, words, layout):
    keras.utils.set_random_seed(4)
    return train_on_mesh(
        CONFIG,
        Layout(*layout),
        tokens,
        words,
        folder,
        steps=4,
        batch_size=4,
        learning_rate=3e-3,
        warmup_steps=1,
        steps_per_epoch=2,
    )


def test_a_run_of_another_config_is_refused_by_the_first_field_that_differs(
    tmp_path,
    cache,  # noqa: F811 - a fixture's name is its argument's
    vocabulary,  # noqa: F811
):
    check_config("Parti", CONFIG, tmp_path)
    other = dataclasses.replace(CONFIG, heads=4, mlp_dim=32)
    with pytest.raises(
        ValueError, match=r"holds a run with heads=2. Received: heads=4"
    ):
        train_on_mesh(other, Layout(), cache, vocabulary, tmp_path)


class Sums:
    """A step without a graph: weights move by what they are shown, and when."""

    ends = None  # what ends the run within its third step

    def __init__(self, config, *_, **options):
        self.config = config

    def load(self, arrays, done):
        self.done = done
        self.values = {
            a.name: arrays.get(a.name, np.zeros(a.shape, a.dtype))
            for a in arrays_of(self.config)
        }

    def arrays(self):
        return self.values

    def train(self, ids, rate):
        if self.done == 2 and self.ends:
            self.ends()
        places = np.arange(ids["image_ids"].size).reshape(ids["image_ids"].shape)
        shown = np.sum(places * ids["before_ids"]) + np.sum(ids["text_ids"])
        self.done += 1
        move = np.float32(rate * shown / self.done)
        for name, array in self.values.items():
            if array.dtype == np.float32:  # not the 8 bits of a momentum
                self.values[name] = array + move
        return {"loss": float(move)}

    def evaluate(self, ids):
        return {"loss": float(np.mean(ids["image_ids"]))}


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("ends", "error", "kept"),
    [
        (interrupted, KeyboardInterrupt, ["00000002.npz"]),
        (
            functools.partial(signal.raise_signal, signal.SIGTERM),
            SystemExit,
            ["00000002.npz", "00000003.npz"],
        ),
        (
            functools.partial(signal.raise_signal, signal.SIGINT),
            KeyboardInterrupt,
            ["00000002.npz", "00000003.npz"],
        ),
    ],
    ids=["killed", "told to end", "by Ctrl-C"],
)
def test_a_run_goes_on_where_it_stopped(
    tmp_path,
    monkeypatch,
    cache,  # noqa: F811
    vocabulary,  # noqa: F811
    ends,
    error,
    kept,
):
    """Weights, batches, what is hidden in them, the rate, the epochs of the curves."""
    monkeypatch.setattr(mesh_training, "MeshStep", Sums)
    whole = run(tmp_path / "whole", cache, vocabulary, ("", ""))
    with monkeypatch.context() as patched:
        patched.setattr(Sums, "ends", staticmethod(ends))
        with pytest.raises(error):
            run(tmp_path / "cut", cache, vocabulary, ("", ""))
    folder = tmp_path / "cut" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == kept
    ended = run(tmp_path / "cut", cache, vocabulary, ("", ""))
    stored = Parti.load_dir(tmp_path / "cut" / "model")
    for one, other, read in zip(
        whole.get_weights(), ended.get_weights(), stored.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(other, one)
        np.testing.assert_array_equal(read, one)
    assert (tmp_path / "cut" / "logs" / "validation").is_dir()
    assert stored.config.vocabulary == vocabulary.fingerprint


@pytest.mark.slow
def test_a_killed_run_goes_on_with_another_mesh_and_ends_the_same(
    tmp_path,
    monkeypatch,
    cache,  # noqa: F811 - a fixture's name is its argument's
    vocabulary,  # noqa: F811
):
    whole = run(tmp_path / "whole", cache, vocabulary, ("", ""))
    noted = Parti.load_dir(tmp_path / "whole" / "model").config
    assert (noted.tokenizer, noted.vocabulary) == (
        "a tokenizer",
        vocabulary.fingerprint,
    )
    check = mesh_training.check_finite

    def kill(log, when):
        check(log, when)
        if when == "step 3":
            raise KeyboardInterrupt

    monkeypatch.setattr(mesh_training, "check_finite", kill)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", cache, vocabulary, ("a:2", "batch:a"))
    monkeypatch.undo()
    ended = run(tmp_path / "killed", cache, vocabulary, ("b:2", "mlp:b;heads:b"))
    for path in ("whole", "killed"):
        assert (tmp_path / path / "logs" / "validation").is_dir()
    ids = {
        "text_ids": np.full((3, 11), 5, "int32"),
        "image_ids": np.arange(27, dtype="int32").reshape(3, 9) % 23,
    }
    stored = Parti.load_dir(tmp_path / "killed" / "model")
    logits = [np.asarray(m(ids)) for m in (whole, ended, stored)]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
    np.testing.assert_array_equal(logits[2], logits[1])
