"""Training VIM: labels belong to their pictures, runs resume, misfits are named."""

import json

import keras
import numpy as np
import pytest
from killing import killed_in_epoch

tf = pytest.importorskip("tensorflow")

from keras_parti import data  # noqa: E402
from keras_parti.cli import main  # noqa: E402
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


def test_a_killed_run_ends_as_if_it_had_not_been(cache, tmp_path):
    whole = train(cache, tmp_path / "whole", 6)
    with killed_in_epoch(1):
        train(cache, tmp_path / "cut", 6)
    resumed = train(cache, tmp_path / "cut", 6)
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    names = json.loads((tmp_path / "cut" / "classes.json").read_text())
    assert names == sorted(STYLES)


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
