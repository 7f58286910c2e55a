"""PSNR and codebook figures equal their formulas, wherever they are counted."""

import contextlib
import inspect
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_parti.metrics import CodebookPerplexity, CodebookUsage, psnr, ssim


def waves(shape, phase=0.0):
    return 0.5 + 0.5 * np.sin(np.arange(np.prod(shape)) * 0.7 + phase).reshape(shape)


def test_psnr_is_the_formula_of_each_picture_alone():
    a, b = waves((3, 5, 7, 3)), waves((3, 5, 7, 3), phase=0.3)
    expected = [
        -10 * np.log10(((x - y) ** 2).mean()) for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(psnr(a, b)), expected, rtol=1e-5)


def test_psnr_of_a_perfect_copy_is_100_decibels():
    a = waves((2, 5, 7, 3))
    np.testing.assert_allclose(ops.convert_to_numpy(psnr(a, a)), [100.0, 100.0])


def test_psnr_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"must have one shape.*\(1, 5, 7, 3\)"):
        psnr(np.zeros((3, 5, 7, 3)), np.zeros((1, 5, 7, 3)))


def scipy_ssim(x, y):
    """Wang et al., 2004, of one channel: a Gaussian window of 11, without the edge."""

    def mean(z):
        return ndimage.gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy = mean(x * x) - mx**2, mean(y * y) - my**2
    cov = mean(x * y) - mx * my
    c1, c2 = 1e-4, 9e-4
    above = (2 * mx * my + c1) * (2 * cov + c2)
    return (above / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def test_ssim_is_the_formula_of_each_picture_alone():
    a = waves((3, 13, 17, 2))
    b = np.clip(a + 0.2 * waves(a.shape, phase=2.0) - 0.1, 0, 1)
    b[1] = 1 - a[1]
    expected = [
        np.mean([scipy_ssim(x[..., c], y[..., c]) for c in range(2)])
        for x, y in zip(a, b, strict=True)
    ]
    got = ops.convert_to_numpy(ssim(a, b))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got[1] < 0 < got[0] < 1


def test_ssim_of_a_perfect_copy_is_1_even_where_all_is_white():
    a = np.ones((2, 11, 13, 3), "float32")
    a[1] -= waves(a[1].shape) / 9
    np.testing.assert_allclose(ops.convert_to_numpy(ssim(a, a)), [1, 1], atol=1e-5)


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match=r"11 pixels or more.*\(1, 10, 12, 3\)"):
        ssim(np.zeros((1, 10, 12, 3)), np.zeros((1, 10, 12, 3)))


def test_usage_and_perplexity_equal_numpy_over_several_updates():
    ids = [np.array([[0, 3, 3], [5, 0, 3]]), np.array([7, 3])]
    usage, perplexity = CodebookUsage(11), CodebookPerplexity(11)
    for some in ids:
        usage.update_state(some)
        perplexity.update_state(some)
    p = np.bincount(np.concatenate([i.ravel() for i in ids])) / 8
    p = p[p > 0]
    assert float(usage.result()) == pytest.approx(4 / 11)
    assert float(perplexity.result()) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_perplexity_reaches_both_its_ends():
    perplexity = CodebookPerplexity(13)
    assert float(perplexity.result()) == 0.0
    perplexity.update_state([4, 4, 4])
    assert float(perplexity.result()) == pytest.approx(1.0)
    perplexity.reset_state()
    perplexity.update_state(np.arange(13))
    assert float(perplexity.result()) == pytest.approx(13.0, rel=1e-5)


def test_rows_of_weight_zero_are_not_counted():
    usage = CodebookUsage(5)
    usage.update_state([[0, 1], [2, 3]], sample_weight=[1.0, 0.0])
    assert float(usage.result()) == pytest.approx(2 / 5)


def test_metrics_return_from_their_config():
    for metric in (CodebookUsage(5, name="used"), CodebookPerplexity(7)):
        copy = type(metric).from_config(metric.get_config())
        assert (copy.num_codes, copy.name) == (metric.num_codes, metric.name)


def test_a_codebook_of_no_codes_is_refused():
    with pytest.raises(ValueError, match=r"num_codes=0"):
        CodebookUsage(0)


IDS = [0, 1, 2, 2, 5, 5, 5, 9]


class Chooser(keras.Model):
    """Learns nothing of use; its chosen ids are the inputs' integer parts."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.usage = CodebookUsage(11)
        self.perplexity = CodebookPerplexity(11)

    def call(self, x):
        return {"y": self.dense(x), "ids": ops.cast(x, "int32")}

    def compute_loss(self, x, y, y_pred, *args, **kwargs):
        return ops.mean(ops.square(y_pred["y"] - y))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.usage.update_state(y_pred["ids"])
        self.perplexity.update_state(y_pred["ids"])
        return self.get_metrics_result()


def fit_chooser(strategy=None):
    """Returns the figures of an epoch in which eight ids are chosen."""
    x = np.array(IDS, "float32")[:, None]
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = Chooser()
        model.compile("sgd")
    logs = model.fit(x, x, batch_size=4, epochs=2, verbose=0).history
    return logs["codebook_usage"][-1], logs["codebook_perplexity"][-1]


def expected_figures():
    p = np.unique(IDS, return_counts=True)[1] / 8
    return 5 / 11, np.exp(-(p * np.log(p)).sum())


def test_fit_reports_the_figures_of_the_whole_epoch():
    np.testing.assert_allclose(fit_chooser(), expected_figures(), rtol=1e-5)


def test_two_replicas_report_the_figures_of_one(two_replicas):
    figures = fit_chooser(two_replicas)
    np.testing.assert_allclose(figures, expected_figures(), rtol=1e-5)


def test_fit_reports_the_same_on_jax_without_tensorflow():
    script = f"""
import sys; sys.modules["tensorflow"] = None
import keras
import numpy as np
from keras import ops
from keras_parti.metrics import CodebookPerplexity, CodebookUsage
{inspect.getsource(Chooser)}
x = np.array({IDS}, "float32")[:, None]
model = Chooser()
model.compile("sgd")
logs = model.fit(x, x, batch_size=4, epochs=2, verbose=0).history
print(logs["codebook_usage"][-1], logs["codebook_perplexity"][-1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    figures = [float(word) for word in done.stdout.split()]
    np.testing.assert_allclose(figures, expected_figures(), rtol=1e-5)
