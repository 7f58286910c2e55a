"""Rejection by a classifier keeps the best of each class, whatever the classifier."""

import keras
import numpy as np
import pytest

from keras_parti.evaluation.acceptance import draw_accepted, log_probability

SIDE = 4
LABELS = [2, 0]


def draw(labels, seeds):
    """Pictures whose grey says label and seed."""
    grey = (50 * labels + 7 * seeds % 50).astype("uint8")
    return np.broadcast_to(grey[:, None, None, None], (len(grey), SIDE, SIDE, 3))


def classifier(images):
    """Logits that differ between pictures as the sine of their grey."""
    grey = np.round(255 * images[:, 0, 0, 0])
    return np.stack([np.sin(grey), np.cos(grey), np.sin(3 * grey)], axis=1)


def scores_of(label, seeds):
    images = draw(np.full(len(seeds), label), np.array(seeds)) / 255.0
    logits = classifier(images)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return np.log(shares[:, label])


@pytest.mark.parametrize(("rate", "kept"), [(1.0, 11), (0.5, 6), (0.25, 3), (1e-9, 1)])
def test_the_best_share_of_each_class_is_kept_best_first(rate, kept):
    found = draw_accepted(draw, classifier, LABELS, 11, rate, seed=5, batch_size=3)
    for row, label in enumerate(LABELS):
        scores = scores_of(label, range(5, 16))
        order = np.argsort(-scores, kind="stable")[:kept]
        np.testing.assert_array_equal(found["seed"][row], 5 + order)
        np.testing.assert_allclose(found["score"][row], scores[order], atol=1e-5)
        expected = draw(np.full(kept, label), 5 + order)
        np.testing.assert_array_equal(found["images"][row], expected)


def test_a_lower_rate_never_lowers_the_mean_score():
    means = [
        draw_accepted(draw, classifier, LABELS, 16, rate)["score"].mean()
        for rate in (1.0, 0.5, 0.25)
    ]
    assert means == sorted(means)


def test_batches_change_nothing():
    one, other = (
        draw_accepted(draw, classifier, LABELS, 7, 0.5, batch_size=size)
        for size in (1, 16)
    )
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_any_keras_classifier_will_do():
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
    found = draw_accepted(draw, model, LABELS, 5, 0.6)
    images = found["images"].astype("float32") / 255.0
    for row, label in enumerate(LABELS):
        logits = keras.ops.convert_to_numpy(model(images[row]))
        expected = log_probability(logits, np.full(3, label))
        np.testing.assert_allclose(found["score"][row], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LABELS, 5, 0.0), r"`acceptance_rate` must be in \(0, 1\]"),
        ((LABELS, 5, 1.5), r"`acceptance_rate` must be in \(0, 1\]"),
        ((LABELS, 0, 0.5), "At least one label and one sample"),
        (([], 5, 0.5), "At least one label and one sample"),
        (([3], 5, 0.5), "a column for each label"),
    ],
)
def test_bad_numbers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_accepted(draw, classifier, *arguments)
