"""Training runs: resumed = uninterrupted, broken checkpoints."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from discs import pictures
from killing import killed_in_epoch

tf = pytest.importorskip("tensorflow")

from keras_parti import data  # noqa: E402
from keras_parti.models import Parti, ViTVQGAN  # noqa: E402
from keras_parti.text import Vocabulary, train_vocabulary  # noqa: E402
from keras_parti.training import parti, workdir  # noqa: E402
from keras_parti.training.adversarial import PlayersConfig  # noqa: E402

NAMES = ["cat", "dog", "tree", "bread", "apple", "fish", "star"]


def examples(count=14):
    return tf.data.Dataset.from_tensor_slices(
        {
            "image": pictures(count),
            "captions": [
                [f"{NAMES[i % 7]} in toy style", f"a toy {NAMES[i % 7]}"]
                for i in range(count)
            ],
            "synonyms": [[f"{NAMES[i % 7]} thing"] for i in range(count)],
            "name": [NAMES[i % 7] for i in range(count)],
            "style": ["toy"] * count,
            "tone": [""] * count,
        }
    )


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "vocabulary.model"
    train_vocabulary([f"{name} in toy style" for name in NAMES], path, size=290)
    return Vocabulary.from_file(path, 11)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    for split in ("train", "validation"):
        data.write_token_cache(
            folder, split, examples(), model.encode, model.fingerprint(), 23, 9
        )
    return folder


def same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def train_parti(folder, cache, vocabulary, steps=6):
    keras.utils.set_random_seed(4)
    model = Parti.from_preset("parti_tiny")
    parti.train_parti(
        model,
        cache,
        vocabulary,
        folder,
        steps,
        batch_size=5,
        steps_per_epoch=2,
        warmup_steps=1,
        verbose=0,
    )
    return model


def test_a_killed_parti_run_ends_as_if_it_had_not_been(
    tmp_path, caplog, cache, vocabulary
):
    """Weights, optimiser, schedule, seeds of dropout and order of the data."""
    whole = train_parti(tmp_path / "whole", cache, vocabulary)
    with killed_in_epoch(2):
        train_parti(tmp_path / "cut", cache, vocabulary)
    with caplog.at_level("INFO"):
        resumed = train_parti(tmp_path / "cut", cache, vocabulary)
    assert "000002.npz" in caplog.text
    same_weights(resumed, whole)


@pytest.mark.slow
def test_a_broken_checkpoint_gives_way_to_the_one_before(
    tmp_path, cache, vocabulary, caplog
):
    folder = tmp_path / "run"
    whole = train_parti(folder, cache, vocabulary)
    newest = sorted((folder / "checkpoints").glob("*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    with caplog.at_level("INFO"):
        again = train_parti(folder, cache, vocabulary)
    assert "000003.npz is broken, trying the one before" in caplog.text
    assert "000002.npz" in caplog.text
    same_weights(again, whole)


def test_a_finished_run_is_left_as_it_is(tmp_path, cache, vocabulary, caplog):
    one = train_parti(tmp_path, cache, vocabulary)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    caplog.set_level("INFO")
    same_weights(train_parti(tmp_path, cache, vocabulary), one)
    assert f"{tmp_path} is trained: 3 of 3 epochs." in caplog.text
    same_weights(train_parti(tmp_path, cache, vocabulary, steps=2), one)
    said = f"{tmp_path} has 3 epochs already, more than the 1 asked for."
    assert said in caplog.text
    assert files == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}


@pytest.mark.slow
def test_a_run_of_another_config_is_refused(tmp_path, cache, vocabulary):
    train_parti(tmp_path, cache, vocabulary, steps=2)
    begun = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**begun, "heads": 4}))
    with pytest.raises(ValueError, match=r"a run with heads=4. Received: heads=2"):
        train_parti(tmp_path, cache, vocabulary)


def test_a_run_begun_before_there_was_a_field_goes_on(tmp_path):
    """Also where the field is of a config inside, as a generator's is."""
    generator = ViTVQGAN.preset_config("vit_vqgan_tiny")
    config = PlayersConfig(generator, None, averaged=False)
    workdir.check_config("Training", config, tmp_path)
    begun = json.loads((tmp_path / "config.json").read_text())
    del begun["generator"]["head"], begun["averaged"]
    (tmp_path / "config.json").write_text(json.dumps(begun))
    workdir.check_config("Training", config, tmp_path)
    other = dataclasses.replace(generator, code_dim=7)
    with pytest.raises(
        ValueError, match=r"with generator.code_dim=\d+. Received: gen\w+.code_dim=7"
    ):
        workdir.check_config("Training", PlayersConfig(other, None, False), tmp_path)


def test_batches_draw_captions_at_the_stated_rate(cache, vocabulary):
    first = vocabulary.encode([f"{name} in toy style" for name in NAMES])
    rows = {tuple(row) for row in first}
    for rate in (1.0, 0.5):
        drawn = parti.batches(cache, "train", vocabulary, 14, 0, canonical_rate=rate)
        text_ids = np.concatenate([x["text_ids"] for x, _ in drawn.take(30)])
        share = np.mean([tuple(row) in rows for row in text_ids])
        # One in three of the other draws is the first caption as well.
        expected = rate + (1 - rate) / 3
        assert abs(share - expected) <= 5 * np.sqrt(0.25 / len(text_ids)) * (rate < 1)


def test_validation_batches_hold_each_picture_once(cache, vocabulary):
    batches = list(parti.batches(cache, "validation", vocabulary, 5))
    assert [len(y) for _, y in batches] == [5, 5, 4]
    np.testing.assert_array_equal(batches[0][0]["image_ids"], batches[0][1])
