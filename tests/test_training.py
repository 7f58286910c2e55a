"""Training runs: resumed = uninterrupted, codes placed on data, broken checkpoints."""

import json

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from keras_parti import data  # noqa: E402
from keras_parti.models import Parti, ViTVQGAN  # noqa: E402
from keras_parti.text import Vocabulary, train_vocabulary  # noqa: E402
from keras_parti.training import codebook, parti, tokenizer, workdir  # noqa: E402

NAMES = ["cat", "dog", "tree", "bread", "apple", "fish", "star"]


def pictures(count=14, size=12):
    """Discs of different places and colours on white."""
    y, x = np.mgrid[:size, :size]
    images = np.ones((count, size, size, 3), "float32")
    for i in range(count):
        disc = (x - 3 - i % 5) ** 2 + (y - 4 - i % 4) ** 2 < 9
        images[i][disc] = [(i % 3) / 2, (i % 4) / 3, (i % 5) / 4]
    return images


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


@pytest.fixture
def pictures_by_name(monkeypatch):
    """Replaces the picture sets by the discs."""

    def load(name, split, shuffle_seed=None, repeat=False, image_size=None):
        dataset = examples()
        if shuffle_seed is not None:
            dataset = dataset.shuffle(14, seed=shuffle_seed)
        return dataset.repeat() if repeat else dataset

    monkeypatch.setattr(data, "load", load, raising=False)


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


def train_tokenizer(folder, steps, **kwargs):
    keras.utils.set_random_seed(3)
    model = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    options = {"batch_size": 5, "steps_per_epoch": 2, "warmup_steps": 1, "verbose": 0}
    tokenizer.train_tokenizer(model, "discs", folder, steps, **options, **kwargs)
    return model


def same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it is run."""


def kill_in_epoch(monkeypatch, number):
    """Lets the epoch of this number fail before its checkpoint is written."""
    original = workdir.Checkpoints.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        if epoch == number:
            raise Killed
        original(self, epoch, logs)

    monkeypatch.setattr(workdir.Checkpoints, "on_epoch_end", on_epoch_end)


@pytest.mark.slow
@pytest.mark.parametrize("patchwise_steps", [0, 4])
def test_a_killed_tokenizer_run_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch, caplog, pictures_by_name, patchwise_steps
):
    whole = train_tokenizer(tmp_path / "whole", 6, patchwise_steps=patchwise_steps)
    with monkeypatch.context() as context:
        kill_in_epoch(context, 1)
        with pytest.raises(Killed):
            train_tokenizer(tmp_path / "cut", 6, patchwise_steps=patchwise_steps)
    with caplog.at_level("INFO"):
        resumed = train_tokenizer(tmp_path / "cut", 6, patchwise_steps=patchwise_steps)
    assert "Restored" in caplog.text
    same_weights(resumed, whole)
    same_weights(ViTVQGAN.load_dir(tmp_path / "cut" / "model"), whole)


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
    tmp_path, monkeypatch, caplog, cache, vocabulary
):
    """Weights, optimiser, schedule, seeds of dropout and order of the data."""
    whole = train_parti(tmp_path / "whole", cache, vocabulary)
    with monkeypatch.context() as context:
        kill_in_epoch(context, 2)
        with pytest.raises(Killed):
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


def test_a_finished_run_is_left_as_it_is(tmp_path, cache, vocabulary):
    one = train_parti(tmp_path, cache, vocabulary)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    same_weights(train_parti(tmp_path, cache, vocabulary), one)
    assert files == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}


@pytest.mark.slow
def test_a_run_of_another_config_is_refused(tmp_path, cache, vocabulary):
    train_parti(tmp_path, cache, vocabulary, steps=2)
    begun = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**begun, "heads": 4}))
    with pytest.raises(ValueError, match=r"a run with heads=4. Received: heads=2"):
        train_parti(tmp_path, cache, vocabulary)


def test_two_replicas_learn_what_one_device_learns(cache, vocabulary, two_replicas):
    """SGD, since Adam hides a wrong scale of the gradients."""

    def weights(strategy):
        with strategy.scope():
            model = Parti.from_preset(
                "parti_tiny", dropout_rate=0.0, condition_dropout_rate=0.0
            )
            rng = np.random.default_rng(0)
            for v in model.trainable_variables:
                v.assign(0.3 * rng.normal(size=v.shape))
            model.compile(keras.optimizers.SGD(0.1), loss=parti.TokenCrossEntropy())
        history = model.fit(x, y, batch_size=6, shuffle=False, verbose=0)
        return model.get_weights(), history.history["loss"]

    dataset = parti.batches(cache, "validation", vocabulary, 12)
    x, y = tf.nest.map_structure(lambda t: t.numpy(), next(iter(dataset)))

    one, loss_one = weights(tf.distribute.OneDeviceStrategy("/cpu:0"))
    two, loss_two = weights(two_replicas)
    np.testing.assert_allclose(loss_one, loss_two, rtol=1e-5)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


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


def test_dead_codes_are_placed_on_vectors_of_the_data():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    away = np.full(model.quantizer.codebook.shape, -1.0, "float32")
    revival = codebook.CodebookRevival(lambda epoch: [pictures()])
    revival.set_model(model)
    model.quantizer.codebook.assign(away)
    revival.on_epoch_begin(3)
    codes = keras.ops.convert_to_numpy(model.quantizer.codebook)
    vectors = keras.ops.convert_to_numpy(
        model.quantizer.normalize(model.vectors(pictures()))
    ).reshape(-1, 5)
    distance = np.linalg.norm(codes[:, None] - vectors, axis=-1).min(1)
    # One code, the first by argmax, was nearest to all and stays where it is.
    assert (distance < 1e-5).sum() == 22


def test_codes_in_use_stay():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    revival = codebook.CodebookRevival(lambda epoch: [pictures()], until_epoch=5)
    revival.set_model(model)
    used = np.unique(model.encode(pictures()))
    before = keras.ops.convert_to_numpy(model.quantizer.codebook).copy()
    revival.on_epoch_begin(5)
    np.testing.assert_array_equal(model.quantizer.codebook, before)
    revival.on_epoch_begin(4)
    after = keras.ops.convert_to_numpy(model.quantizer.codebook)
    np.testing.assert_array_equal(after[used], before[used])
    assert (after != before).any()


def test_kmeans_never_raises_the_distance_to_the_nearest_centre():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 3)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = vectors[:11].copy()
    costs = []
    for _ in range(6):
        costs.append((1 - (vectors @ centres.T).max(1)).mean())
        centres = codebook.spherical_kmeans(vectors, centres, 1)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.8 * costs[0]


def test_reconstruction_is_measured_and_shown(tmp_path):
    model = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    images = tf.data.Dataset.from_tensor_slices(pictures()).batch(4)
    callback = codebook.Reconstruction(images, tmp_path, num_shown=3)
    callback.set_model(model)
    logs = {}
    callback.on_epoch_end(0, logs)
    outputs = keras.ops.convert_to_numpy(model.reconstruct(pictures()))
    errors = np.square(outputs - pictures()).mean((1, 2, 3))
    assert logs["val_psnr"] == pytest.approx(-10 * np.log10(errors).mean(), rel=1e-4)
    used = len(np.unique(model.encode(pictures())))
    assert logs["val_codebook_usage"] == pytest.approx(used / 23)
    assert list(tmp_path.glob("events*"))
