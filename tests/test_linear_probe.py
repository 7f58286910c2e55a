"""The linear probe: a convex problem solved, and features that are the model's."""

import json

import numpy as np
import pytest

from keras_parti import data
from keras_parti.evaluation import linear_probe
from keras_parti.models import VIM, ViTVQGAN


def blobs(count=211, dim=7, classes=3, spread=1.0):
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(classes, dim))
    labels = np.arange(count) % classes
    features = centres[labels] + spread * rng.normal(size=(count, dim))
    return (features * 10.0 ** (np.arange(dim) % 5 - 2)).astype("float32"), labels


def test_the_fit_is_where_the_penalised_loss_is_flat():
    features, labels = blobs()
    layer = linear_probe.fit_softmax(features, labels, 3, 0.01, steps=2000)
    logits = layer(features).astype("float64")
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    x = (features - features.mean(0)) / features.std(0)
    # The layer is affine: its values at the mean and at unit steps tell its weights.
    mean, scale = features.mean(0), features.std(0)
    bias = layer(mean[None])[0]
    weights = layer(mean + np.diag(scale)) - bias
    gradient = x.T @ (shares - np.eye(3)[labels]) / len(x) + 0.01 * weights
    assert np.abs(gradient).max() < 1e-4
    np.testing.assert_allclose(shares.mean(0), np.bincount(labels) / len(x), atol=1e-4)


def test_features_of_any_scale_or_of_no_spread_change_nothing():
    features, labels = blobs()
    logits = linear_probe.fit_softmax(features, labels, 3, 0.1)(features)
    wider = np.concatenate([1000 * features, np.full((211, 2), 5, "float32")], axis=1)
    again = linear_probe.fit_softmax(wider, labels, 3, 0.1)(wider)
    np.testing.assert_allclose(again, logits, atol=1e-3)


def test_more_features_than_examples_are_no_difficulty():
    features, labels = blobs(count=31, dim=53, spread=0.1)
    layer = linear_probe.fit_softmax(features, labels, 3, 0.01)
    assert (layer(features).argmax(1) == labels).all()


def test_the_penalty_is_chosen_without_the_test_pictures():
    features, labels = blobs()
    rng = np.random.default_rng(5)
    asked = [(features, labels), (features, rng.permutation(labels))]
    penalties = {linear_probe.probe(features, labels, *x, 3)[1] for x in asked}
    assert len(penalties) == 1


def test_wilsons_interval_holds_the_share_as_often_as_it_says():
    rng = np.random.default_rng(6)
    for share in (0.5, 0.95):
        ends = [linear_probe.wilson(rng.random(101) < share) for _ in range(2000)]
        held = np.mean([low <= share <= high for low, high in ends])
        assert 0.93 < held < 0.97


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(7)
    labels = np.array(["cat", "dog"])[np.arange(40) % 2]
    ids = rng.integers(0, 23, (40, 9))
    # A dog has an odd id in every place: the counts of the ids tell the class.
    ids = 2 * (ids // 2) % 22 + (labels == "dog")[:, None]
    images = rng.integers(0, 256, (40, 5, 5, 3), dtype="uint8")
    return {"images": images, "ids": ids, "labels": labels}


def test_every_block_stands_beside_pixels_codes_and_chance(split, tmp_path):
    vim = VIM.from_preset("vim_tiny")
    found = linear_probe.evaluate_linear_probe(vim, split, split, tmp_path)
    names = ["pixels", "codes", "block 0", "block 1", "block 2"]
    assert list(found["accuracy"]) == names
    assert found["chance"] == 0.5
    assert found["accuracy"]["codes"]["value"] == 1.0
    assert json.loads((tmp_path / "results.json").read_text()) == found
    table = (tmp_path / "table.md").read_text()
    assert "block 1 (the paper's choice)" in table
    assert "the most frequent class | 50.0" in table


def test_features_do_not_depend_on_the_batch(split):
    vim = VIM.from_preset("vim_tiny")
    one, other = (linear_probe._features(vim, split, size) for size in (7, 40))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)


def test_a_class_that_was_never_seen_is_named(split, tmp_path):
    test = {**split, "labels": np.array(["cow"] * 40)}
    vim = VIM.from_preset("vim_tiny")
    with pytest.raises(ValueError, match=r"all of `test`.*cow"):
        linear_probe.evaluate_linear_probe(vim, split, test, tmp_path)


def test_ids_and_labels_are_those_of_their_pictures(monkeypatch):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(8)
    images = rng.integers(0, 256, (7, 12, 12, 3), dtype="uint8")
    names = np.array([f"thing {i}" for i in range(7)])

    def load(name, split, batch_size, image_size):
        assert (name, split, image_size) == ("things", "train", 12)
        columns = {"image": images / np.float32(255), "name": names}
        return tf.data.Dataset.from_tensor_slices(columns).batch(batch_size)

    monkeypatch.setattr(data, "load", load, raising=False)
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    found = linear_probe.read_labelled(tokenizer, "things", "train", "name", 3)
    np.testing.assert_array_equal(found["images"], images)
    np.testing.assert_array_equal(found["labels"], names)
    expected = tokenizer.encode(images / np.float32(255))
    np.testing.assert_array_equal(found["ids"], expected)
    with pytest.raises(ValueError, match="Not all pictures of things have a style"):
        linear_probe.read_labelled(tokenizer, "things", "train", "style", 3)
