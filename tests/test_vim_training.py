"""Training VIM: labels belong to their pictures, runs resume, misfits are named."""

import functools
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from killing import killed_in_epoch

tf = pytest.importorskip("tensorflow")

from keras_parti import data  # noqa: E402
from keras_parti.cli import main  # noqa: E402
from keras_parti.losses import TokenCrossEntropy  # noqa: E402
from keras_parti.models import VIM  # noqa: E402
from keras_parti.training import vim, workdir  # noqa: E402

STYLES = ["flat", "ink", "wax", "oil", "glass"]
COUNT = 17


def style_of(row):
    return STYLES[sum(row) % 5]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Ids whose sum says the style; the tokenizer reads them off the pictures."""
    folder = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(3)
    for split in ("train", "validation"):
        rows = rng.integers(0, 23, (COUNT, 9))
        rows[:5] = np.arange(5)[:, None] * [[1, 0, 0, 0, 0, 0, 0, 0, 0]]
        images = rows.reshape(COUNT, 3, 3, 1).repeat(3, axis=3).astype("float32")
        columns = {
            "image": images,
            "style": [style_of(row) for row in rows],
            "category": [""] * COUNT,
        }
        examples = tf.data.Dataset.from_tensor_slices(columns)
        data.write_token_cache(
            folder,
            split,
            examples,
            lambda x: x[..., 0].reshape(-1, 9).astype(int),
            "f",
            23,
            9,
        )
    return folder


def train(cache, folder, steps, **kwargs):
    keras.utils.set_random_seed(5)
    model = VIM.from_preset("vim_tiny", class_dropout_rate=0.2)
    vim.train_vim(
        model,
        cache,
        folder,
        "style",
        steps,
        batch_size=4,
        warmup_steps=1,
        steps_per_epoch=2,
        verbose=0,
        **kwargs,
    )
    return model


def test_a_label_is_the_place_of_the_pictures_own_class(cache):
    classes = vim.read_classes(cache, "style")
    assert classes == sorted(STYLES)
    for seed in (None, 3):
        batches = vim.batches(cache, "train", 5, "style", classes, seed).take(7)
        for inputs, target in batches.as_numpy_iterator():
            np.testing.assert_array_equal(inputs["image_ids"], target)
            expected = [classes.index(style_of(row)) for row in target]
            np.testing.assert_array_equal(inputs["labels"], expected)


def test_pictures_of_other_classes_are_left_out(cache):
    some = vim.batches(cache, "train", 5, "style", ["ink", "wax"])
    labels = np.concatenate([x["labels"] for x, _ in some.as_numpy_iterator()])
    assert set(labels) == {0, 1}
    assert 2 <= len(labels) < COUNT


def test_without_a_feature_there_are_no_labels(cache):
    inputs, _ = next(vim.batches(cache, "train", 5).as_numpy_iterator())
    assert set(inputs) == {"image_ids"}


def same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_killed_run_ends_as_if_it_had_not_been(cache, tmp_path):
    whole = train(cache, tmp_path / "whole", 6)
    with killed_in_epoch(1):
        train(cache, tmp_path / "cut", 6)
    resumed = train(cache, tmp_path / "cut", 6)
    same_weights(resumed, whole)
    names = json.loads((tmp_path / "cut" / "classes.json").read_text())
    assert names == sorted(STYLES)


def stopped_then_killed(cache, tmp_path):
    """A whole run of three epochs, and one that was interrupted in two ways."""
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: os.kill(os.getpid(), signal.SIGTERM)
    )
    whole = train(cache, tmp_path / "whole", 6)
    with pytest.raises(SystemExit):
        train(cache, tmp_path / "cut", 6, callbacks=[stop])
    assert list((tmp_path / "cut" / "checkpoints").glob("000000+000001.npz"))
    with killed_in_epoch(2):
        train(cache, tmp_path / "cut", 6)
    return whole, train(cache, tmp_path / "cut", 6)


def compile_plainly(model, rate, **options):
    model.compile(keras.optimizers.SGD(0.5), TokenCrossEntropy(), **options)


def test_a_stopped_then_a_killed_run_ends_as_if_it_had_not_been(
    cache, tmp_path, monkeypatch
):
    """After SIGTERM there are two `fit`s in one process: both find their batches."""
    # To trace a graph would take longer than six steps without one.
    eager = functools.partial(compile_plainly, run_eagerly=True)
    monkeypatch.setattr(vim, "compile_vim", eager)
    named = []
    monkeypatch.setattr(workdir, "report_skipped", lambda: named.append(True))
    same_weights(*stopped_then_killed(cache, tmp_path))
    assert len(named) == 4  # pictures that could not be read, however a run ends


@pytest.mark.slow
def test_so_does_one_of_two_replicas(cache, tmp_path, two_replicas, monkeypatch):
    """There Keras looks at a batch before the first `fit`, and not before others."""
    plain = functools.partial(compile_plainly, jit_compile=False)
    monkeypatch.setattr(vim, "compile_vim", plain)
    with two_replicas.scope():
        same_weights(*stopped_then_killed(cache, tmp_path))


def test_left_out_batches_are_the_first_ones(cache):
    order = (cache, "train", 4, "style", vim.read_classes(cache, "style"), 3)
    whole = list(vim.batches(*order).take(14).as_numpy_iterator())
    rest = list(vim.batches(*order, skipped=6).take(8).as_numpy_iterator())
    for (a, _), (b, _) in zip(whole[6:], rest, strict=True):
        np.testing.assert_array_equal(a["image_ids"], b["image_ids"])
        np.testing.assert_array_equal(a["labels"], b["labels"])


def test_without_held_out_pictures_nothing_is_validated(cache, tmp_path, monkeypatch):
    shutil.copytree(cache, tmp_path / "cache")
    manifest = tmp_path / "cache" / "manifest.json"
    held_out = json.loads(manifest.read_text())
    del held_out["splits"]["validation"]
    manifest.write_text(json.dumps(held_out))
    given = []
    monkeypatch.setattr(workdir, "fit", lambda *_, **given_: given.append(given_))
    for folder in (tmp_path / "cache", cache):
        train(folder, tmp_path / "run", 2)
    without, with_some = (each["validation_data"] for each in given)
    assert without is None
    assert len(with_some) > 0


def test_the_rate_follows_the_papers_schedule(cache, tmp_path, monkeypatch):
    """Warm-up, then constant until 80/450 of the run, then 1/45 at its end."""
    monkeypatch.setattr(workdir, "fit", lambda *args, **kwargs: None)
    model = train(cache, tmp_path, 450, learning_rate=4.5e-4)
    rate = model.optimizer._learning_rate
    found = [float(rate(step)) for step in (0, 1, 80, 265, 450)]
    half_way = 4.5e-4 * (1e-5 / 4.5e-4) ** 0.5
    np.testing.assert_allclose(found, [0, 4.5e-4, 4.5e-4, half_way, 1e-5], rtol=1e-4)
    config = model.optimizer.get_config()
    assert (config["beta_1"], config["beta_2"]) == (0.9, 0.96)
    assert config["weight_decay"] is config["global_clipnorm"] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 4}, "`num_classes` of the model must be 5"),
        ({"num_classes": None}, "`num_classes` of the model must be 5"),
        ({"num_codes": 29}, "`num_codes` of the model must be 23"),
        ({"num_tokens": 16}, "`num_tokens` of the model must be 9"),
    ],
)
def test_a_model_that_does_not_fit_the_cache_is_refused(
    cache, tmp_path, fields, message
):
    model = VIM.from_preset("vim_tiny", **fields)
    with pytest.raises(ValueError, match=message):
        vim.train_vim(model, cache, tmp_path, "style", steps=1)
    assert not list(tmp_path.iterdir())


def test_a_workdir_of_other_classes_is_refused(cache, tmp_path):
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(ValueError, match="other classes than flat, glass"):
        train(cache, tmp_path, 2)


def test_features_that_pictures_lack_are_no_classes(cache):
    with pytest.raises(ValueError, match=r"Not all pictures .* have a category"):
        vim.read_classes(cache, "category")
    with pytest.raises(ValueError, match=r"`feature` must be one of name, style"):
        vim.read_classes(cache, "colour")


def test_the_command_fits_the_model_to_the_cache(cache, tmp_path, capsys):
    run = f"train vim --data {cache} --preset vim_digits --workdir {tmp_path}".split()
    options = "--label style --class-dropout-rate 0.3 --steps 1 --steps-per-epoch 1"
    assert main([*run, *options.split(), "--batch-size", "3"]) == 0
    assert "num_classes is 5, not None as in vim_digits" in capsys.readouterr().out
    config = VIM.load_dir(workdir.model_dir(tmp_path)).config
    assert (config.num_codes, config.num_tokens, config.num_classes) == (23, 9, 5)
    assert (config.class_dropout_rate, config.layers) == (0.3, 8)
    assert config.tokenizer == "f"
    assert main([*run, "--label", "colour"]) == 2
    assert "--label" in capsys.readouterr().err
