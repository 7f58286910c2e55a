"""The codebook in training: placed on data, codes revived, by k-means."""

import keras
import numpy as np
import pytest
from discs import pictures

pytest.importorskip("tensorflow")

from keras_parti.models import ViTVQGAN
from keras_parti.training import codebook, tokenizer
from keras_parti.training.adversarial import AdversarialTraining


def in_training(model, average=0.9):
    """A tokenizer's training whose optimiser has records, all of them one."""
    training = AdversarialTraining(model)
    training.compile(tokenizer.adamw(1e-3, average))
    for record in training.optimizer.variables[2:]:  # after the rate and the steps
        record.assign(np.ones(record.shape))
    return training


def revive(model, epoch, away=None, training=None, **kwargs):
    if away is not None:
        model.quantizer.codebook.assign(away)
    revival = codebook.CodebookRevival(model, lambda epoch: [pictures()], **kwargs)
    revival.set_model(training or in_training(model))
    revival.on_epoch_begin(epoch)
    return keras.ops.convert_to_numpy(model.quantizer.codebook)


def records_of_codes(training):
    """The optimiser's momentum, velocity and average of the codebook."""
    records = {v.name: v for v in training.optimizer.variables}
    kinds = ("momentum", "velocity", "average")
    return [records[f"quantizer_codebook_{kind}"] for kind in kinds]


@pytest.mark.parametrize("every", [1, 3])
def test_dead_codes_are_placed_on_vectors_of_the_data(every):
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    codes = revive(model, 3, np.full((23, 5), -1.0, "float32"), every=every)
    vectors = keras.ops.convert_to_numpy(
        model.quantizer.normalize(model.vectors(pictures()))
    ).reshape(-1, 5)
    distance = np.linalg.norm(codes[:, None] - vectors[::every], axis=-1).min(1)
    # One code, the first by argmax, was nearest to all and stays where it is.
    assert (distance < 1e-5).sum() == 22


def test_vectors_are_compared_with_the_codes_a_part_at_a_time(monkeypatch):
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    away = keras.ops.convert_to_numpy(model.quantizer.codebook).copy()
    whole = revive(model, 3, away)
    nearest, sizes = model.quantizer.nearest, []
    monkeypatch.setattr(codebook, "PART", 7)
    monkeypatch.setattr(
        model.quantizer, "nearest", lambda x: sizes.append(x.shape[1]) or nearest(x)
    )
    np.testing.assert_array_equal(revive(model, 3, away), whole)
    assert max(sizes) <= 7
    assert sum(sizes) == model.config.num_tokens * len(pictures())


def test_codes_in_use_stay():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    used = np.unique(model.encode(pictures()))
    before = keras.ops.convert_to_numpy(model.quantizer.codebook).copy()
    np.testing.assert_array_equal(revive(model, 5, until_epoch=5), before)
    after = revive(model, 4, until_epoch=5)
    np.testing.assert_array_equal(after[used], before[used])
    assert (after != before).any()


def test_the_optimiser_begins_anew_with_codes_that_moved():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    used = np.unique(model.encode(pictures()))
    dead = np.setdiff1d(np.arange(23), used)
    assert len(used)
    assert len(dead)
    training = in_training(model, average=0.999)
    codes = revive(model, 3, training=training)
    *moments, average = map(keras.ops.convert_to_numpy, records_of_codes(training))
    for moment in moments:
        assert not moment[dead].any()
    np.testing.assert_array_equal(average[dead], codes[dead])
    for record in (*moments, average):
        assert (record[used] == 1).all()
    others = {id(v) for v in records_of_codes(training)}
    for record in training.optimizer.variables[2:]:
        assert id(record) in others or (np.asarray(record) == 1).all()


def test_without_an_average_the_moments_begin_anew_alone():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    training = in_training(model, average=None)
    revive(model, 0, training=training)
    names = [v.name for v in training.optimizer.variables if not np.any(v)]
    assert {"quantizer_codebook_momentum", "quantizer_codebook_velocity"} <= {*names}
    assert not any(name.endswith("average") for name in names)


def test_two_replicas_place_the_codes_of_one_device(two_replicas):
    keras.utils.set_random_seed(2)
    one = ViTVQGAN.from_preset("vit_vqgan_tiny")
    with two_replicas.scope():
        two = ViTVQGAN.from_preset("vit_vqgan_tiny")
        both = in_training(two)
    two.set_weights(one.get_weights())
    alone = in_training(one)
    for epoch in (0, 1):  # from data, then what no picture uses
        revive(one, epoch, training=alone)
        revive(two, epoch, training=both)
        for expected, placed in zip(
            (one.quantizer.codebook, *records_of_codes(alone)),
            (two.quantizer.codebook, *records_of_codes(both)),
            strict=True,
        ):
            local = two_replicas.experimental_local_results(placed.value)
            assert len(local) == 2
            for values in local:
                np.testing.assert_allclose(values, expected, atol=1e-6)


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


def test_kmeans_of_plain_codes_finds_means_and_not_directions():
    """Lloyd's rounds, each centre by itself; they never raise the distance."""
    rng = np.random.default_rng(0)
    lengths = rng.uniform(0.2, 5, size=(400, 1))
    vectors = (lengths * rng.normal(size=(400, 3))).astype("float32")
    centres = np.concatenate([vectors[:11], [[99, 0, 0]]]).astype("float32")
    costs = []
    for _ in range(6):
        apart = np.square(vectors[:, None] - centres).sum(-1)
        costs.append(apart.min(1).mean())
        moved = codebook.euclidean_kmeans(vectors, centres, 1)
        for code in range(11):
            mean = vectors[apart.argmin(1) == code].mean(0)
            np.testing.assert_allclose(moved[code], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(moved[11], centres[11])  # nothing is near to it
        centres = moved
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.8 * costs[0]


def test_plain_codes_start_where_the_vectors_are():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny", normalized_codes=False)
    head = model.encoder.head.outputs.kernel
    head.assign(9 * head)  # far from the unit sphere
    codes = revive(model, 0)
    vectors = keras.ops.convert_to_numpy(model.vectors(pictures())).reshape(-1, 5)
    apart = np.square(vectors[:, None] - codes).sum(-1).min(1).mean()
    assert apart < 0.2 * vectors.var(0).sum()
