"""Distances of picture sets equal those of independent implementations."""

import numpy as np
import pytest
import scipy.linalg

from keras_parti.evaluation import statistics as statistics_module
from keras_parti.evaluation.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from keras_parti.evaluation.statistics import SPLITS, Statistics

WIDTH, CLASSES = 7, 5


def features(count, seed, shift=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(WIDTH, WIDTH))
    return (random.normal(size=(count, WIDTH)) @ mixing * scale + shift).astype("f4")


def logits(count, seed):
    return np.random.default_rng(seed).normal(0.0, 2.0, (count, CLASSES))


def names(count, word=""):
    return [f"{word}{i}" for i in range(count)]


def of(values, word="", scores=None):
    made = Statistics(WIDTH, 0 if scores is None else CLASSES, "toy")
    made.add(names(len(values), word), values, scores)
    return made


def test_mean_and_covariance_are_those_of_all_pictures_at_once():
    values = features(101, 1, shift=300.0)  # far from 0, where squares lose digits
    made = Statistics(WIDTH, 0, "toy")
    for start in range(0, 101, 13):
        part = values[start : start + 13]
        made.add(names(len(part), start), part)
    exact = values.astype(np.float64)
    assert made.count == 101
    np.testing.assert_allclose(made.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(made.covariance, np.cov(exact.T), rtol=1e-9)


def test_parts_in_any_order_are_the_whole(monkeypatch):
    monkeypatch.setattr(statistics_module, "SAMPLE", 17)
    values, scores = features(60, 2), logits(60, 3)
    whole = Statistics(WIDTH, CLASSES, "toy")
    whole.add(names(60), values, scores)
    parts = []
    for rows in np.array_split(np.random.default_rng(4).permutation(60), 4):
        part = Statistics(WIDTH, CLASSES, "toy")
        part.add([names(60)[i] for i in rows], values[rows], scores[rows])
        parts.append(part)
    joined = Statistics(WIDTH, CLASSES, "toy")
    for part in reversed(parts):
        joined.merge(part)
    assert joined.features().shape == (17, WIDTH)
    np.testing.assert_array_equal(joined.features(), whole.features())
    np.testing.assert_allclose(joined.scatter, whole.scatter, rtol=1e-9, atol=1e-9)
    assert inception_score(joined) == pytest.approx(inception_score(whole), rel=1e-12)


def test_a_file_takes_the_place_of_the_pictures(tmp_path):
    made = of(features(30, 5), scores=logits(30, 6))
    made.save(tmp_path / "s.npz")
    read = Statistics.load(tmp_path / "s.npz")
    other = of(features(40, 7), "other", logits(40, 8))
    assert frechet_distance(read, other) == frechet_distance(made, other)
    assert kernel_distance(read, other) == kernel_distance(made, other)
    read.merge(other)
    made.merge(other)
    np.testing.assert_array_equal(read.scatter, made.scatter)
    assert inception_score(read) == inception_score(made)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ValueError, match="holds no statistics: no"):
        Statistics.load(path)
    of(features(30, 5)).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "mean": np.array([{}], object)})
    with pytest.raises(ValueError, match="damaged"):
        Statistics.load(path)
    np.savez(path, **{**arrays, "scatter": np.zeros((WIDTH, 3))})
    with pytest.raises(ValueError, match="damaged: scatter"):
        Statistics.load(path)


def test_statistics_of_other_features_are_refused():
    one, other = of(features(9, 1)), Statistics(WIDTH, 0, "another")
    other.add(names(9), features(9, 2))
    with pytest.raises(ValueError, match="of other features"):
        one.merge(other)
    for distance in (frechet_distance, kernel_distance, precision_recall):
        with pytest.raises(ValueError, match="same features"):
            distance(one, other)
    with pytest.raises(ValueError, match="must be finite"):
        one.add(["x"], np.full((1, WIDTH), np.nan))
    with pytest.raises(ValueError, match=r"of shape \(2, 7\)"):
        one.add(["x", "y"], np.zeros((1, WIDTH)))


def test_the_frechet_distance_is_that_of_scipys_root():
    real, drawn = features(90, 1), features(70, 2, shift=0.3, scale=1.4)
    root = scipy.linalg.sqrtm(np.cov(real.T) @ np.cov(drawn.T))
    shift = real.mean(axis=0, dtype="f8") - drawn.mean(axis=0, dtype="f8")
    expected = shift @ shift + np.trace(
        np.cov(real.T) + np.cov(drawn.T) - 2 * root.real
    )
    assert frechet_distance(of(real), of(drawn)) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_fewer_pictures_than_features_is_finite():
    few = of(features(3, 1)), of(features(3, 2, shift=1.0))
    assert 0.0 < frechet_distance(*few) < 1e3
    assert frechet_distance(few[0], few[0]) == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(ValueError, match="At least two pictures"):
        frechet_distance(of(features(1, 1)), few[0])


def test_the_kernel_distance_is_its_definition_written_out():
    real, drawn = features(23, 1).astype("f8"), features(23, 2, shift=0.2).astype("f8")

    def kernel(a, b):
        return (a @ b / WIDTH + 1) ** 3

    n = len(real)
    same = sum(
        kernel(points[i], points[j])
        for points in (real, drawn)
        for i in range(n)
        for j in range(n)
        if i != j
    )
    cross = sum(kernel(x, y) for x in real for y in drawn)
    expected = same / (n * (n - 1)) - 2 * cross / n**2
    mean, deviation = kernel_distance(of(real), of(drawn))
    # Each subset is all of them here, in another order.
    assert mean == pytest.approx(expected, rel=1e-9)
    assert deviation == pytest.approx(0.0, abs=1e-9 * abs(expected) + 1e-12)


def test_the_kernel_distance_of_one_distribution_is_about_zero():
    mean, _ = kernel_distance(of(features(100, 1)), of(features(100, 2)))
    far, _ = kernel_distance(of(features(100, 1)), of(features(100, 2, shift=2.0)))
    assert abs(mean) < 0.05 * far


def test_precision_and_recall_are_shares_within_balls():
    real, drawn = features(19, 1).astype("f8"), features(29, 2, scale=0.6).astype("f8")

    def share(points, centres):
        radii = [
            sorted(np.linalg.norm(centre - other) for other in centres)[3]
            for centre in centres
        ]
        inside = [
            any(
                np.linalg.norm(point - centre) <= radius
                for centre, radius in zip(centres, radii, strict=True)
            )
            for point in points
        ]
        return np.mean(inside)

    found = precision_recall(of(real), of(drawn, "d"))
    assert found == pytest.approx((share(drawn, real), share(real, drawn)))
    assert found[0] != found[1]


def test_precision_without_recall_and_recall_without_precision():
    real = of(features(200, 1))
    narrow = of(features(200, 1) * 0.05)  # good pictures, all alike
    assert precision_recall(real, narrow)[0] > 0.9
    assert precision_recall(real, narrow)[1] < 0.1
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, of(features(200, 1, shift=1e3))) == (0.0, 0.0)
    with pytest.raises(ValueError, match="more than 3 pictures"):
        precision_recall(real, of(features(3, 1)))


def test_the_inception_score_is_its_definition_in_each_split():
    scores = logits(97, 3)
    made = of(features(97, 1), scores=scores)
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    keys = np.array([statistics_module._key(name) for name in names(97)], np.uint64)
    expected = []
    for split in range(SPLITS):
        some = p[keys % SPLITS == split]
        divergence = (some * np.log(some / some.mean(axis=0))).sum(axis=1)
        expected.append(np.exp(divergence.mean()))
    found = inception_score(made)
    assert found == pytest.approx((np.mean(expected), np.std(expected)), rel=1e-12)
    with pytest.raises(ValueError, match="all its splits"):
        inception_score(of(features(3, 1), scores=logits(3, 1)))
