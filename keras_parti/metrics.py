"""Measures of pictures and of codebooks, in `keras.ops`: they run on every backend."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.typing import Tensor

__all__ = ["CodebookPerplexity", "CodebookUsage", "psnr", "recall", "ssim"]

# The mean square error below which two pictures count as equal: it keeps the
# PSNR of a perfect copy finite, at 100 dB, so that means stay meaningful. One
# picture of 64 x 64 with one value off by 1/255 has 1.3e-9, which is 89 dB.
MIN_ERROR = 1e-10

# SSIM's window: 11 pixels along each side, weighted by a Gaussian of deviation 1.5.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, in decibels.

    `-10 log10(mean squared error)`: the peak is 1. Equal pictures give 100 dB.
    A mean over pictures is the mean of these figures, not the figure of the mean
    error, which a few bad pictures would decide.

    Args:
        images: float `(batch, height, width, channels)`, in `[0, 1]`.
        others: float, the same shape.

    Returns:
        float32 `(batch,)`.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> black, grey = ops.zeros((1, 5, 7, 3)), ops.full((1, 5, 7, 3), 0.1)
        >>> round(float(psnr(black, grey)[0]), 2)
        20.0
    """
    images, others = _pair(images, others)
    error = ops.mean(ops.square(images - others), axis=(1, 2, 3))  # (batch,)
    return -10.0 * ops.log10(ops.maximum(error, MIN_ERROR))


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of each picture, the mean over its windows and channels.

    Windows that would reach over the edge are left out. K1 is 0.01, K2 0.03, the range
    of values 1.

    Args:
        images: float `(batch, height, width, channels)`, in `[0, 1]`, 11 pixels or more
            along each side.
        others: float, the same shape.

    Returns:
        float32 `(batch,)` in `[-1, 1]`; 1 for equal pictures.

    Raises:
        ValueError: the shapes differ, or a side is too short.

    References:
        - Wang et al., 2004, Image quality assessment: from error visibility to
          structural similarity, eq. 13 to 17
    """
    images, others = _pair(images, others)
    if min(images.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(
            f"`images` must have {SSIM_WINDOW} pixels or more along each side, the "
            f"window of SSIM. Received: shape {tuple(images.shape)}"
        )
    mean, other_mean = _local_mean(images), _local_mean(others)
    # Differences of squares lose digits in float32, so the means of each picture are
    # taken away first, which no variance notices.
    images = images - ops.mean(images, axis=(1, 2), keepdims=True)
    others = others - ops.mean(others, axis=(1, 2), keepdims=True)
    local, other_local = _local_mean(images), _local_mean(others)
    variance = _local_mean(images * images) - local * local
    other_variance = _local_mean(others * others) - other_local * other_local
    covariance = _local_mean(images * others) - local * other_local
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean * other_mean + c1) / (mean**2 + other_mean**2 + c1)
    structure = (2 * covariance + c2) / (variance + other_variance + c2)
    return ops.mean(luminance * structure, axis=(1, 2, 3))


def _local_mean(images):
    """Filters each channel by SSIM's Gaussian, along one axis after the other."""
    distance = ops.arange(SSIM_WINDOW, dtype="float32") - SSIM_WINDOW // 2
    taps = ops.exp(-0.5 * ops.square(distance / SSIM_SIGMA))
    taps = ops.reshape(taps / ops.sum(taps), (-1, 1, 1, 1))
    kernel = ops.repeat(taps, images.shape[-1], axis=2)
    for each in (kernel, ops.transpose(kernel, (1, 0, 2, 3))):
        images = ops.depthwise_conv(images, each, data_format="channels_last")
    return images


def _pair(images, others):
    """Returns both in float32, or raises `ValueError` where their shapes differ."""
    images, others = ops.cast(images, "float32"), ops.cast(others, "float32")
    if len(images.shape) != 4 or tuple(images.shape) != tuple(others.shape):
        raise ValueError(
            "`images` and `others` must have one shape, (batch, height, width, "
            f"channels). Received: {tuple(images.shape)} and {tuple(others.shape)}"
        )
    return images, others


class _CodeCounts(keras.metrics.Metric):
    """Counts how often each code of a codebook was chosen since the last reset.

    Under `tf.distribute` the counts of the replicas are summed before `result`
    is taken, so an epoch's figure is that of one device that saw all the ids.

    Args:
        num_codes: int. Number of codebook entries.
        name: str.
    """

    def __init__(self, num_codes: int, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if num_codes < 1:
            raise ValueError(
                f"`num_codes` must be at least 1. Received: num_codes={num_codes}"
            )
        self.num_codes = num_codes
        # float32 whatever the policy: bfloat16 cannot count beyond 256.
        self.counts = self.add_variable(
            shape=(num_codes,), initializer="zeros", dtype="float32", name="counts"
        )

    def update_state(self, ids: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds ids to the counts.

        Args:
            ids: int tensor of any shape, in `[0, num_codes)`.
            sample_weight: float tensor that broadcasts to `ids` from the left,
                or None: every id counts once.
        """
        ids = ops.convert_to_tensor(ids)
        weight = ops.ones(ops.shape(ids), "float32")
        if sample_weight is not None:
            given = ops.cast(sample_weight, "float32")
            missing = len(ids.shape) - len(given.shape)
            weight *= ops.reshape(given, ops.shape(given) + (1,) * missing)
        self.counts.assign_add(
            ops.segment_sum(
                ops.reshape(weight, (-1,)),
                ops.cast(ops.reshape(ids, (-1,)), "int32"),
                num_segments=self.num_codes,
            )
        )

    def get_config(self):
        return {**super().get_config(), "num_codes": self.num_codes}


@keras.saving.register_keras_serializable("keras_parti")
class CodebookUsage(_CodeCounts):
    """Share of the codebook that was chosen at least once, in `[0, 1]`.

    It has no target, so it is fed with the ids alone, by a model's
    `compute_metrics` or training step rather than through `compile(metrics=)`.

    Args:
        num_codes: int. Number of codebook entries.
        name: str.

    Example:
        >>> usage = CodebookUsage(num_codes=8)
        >>> usage.update_state([[0, 1], [1, 5]])
        >>> float(usage.result())
        0.375
    """

    def __init__(
        self, num_codes: int, name: str = "codebook_usage", **kwargs: Any
    ) -> None:
        super().__init__(num_codes, name, **kwargs)

    def result(self):
        return ops.mean(ops.cast(self.counts > 0, "float32"))


@keras.saving.register_keras_serializable("keras_parti")
class CodebookPerplexity(_CodeCounts):
    """The number of equally frequent codes with the entropy of the chosen ones.

    `exp(-sum p log p)` over the share p of each code: 1 where one code is always
    chosen, `num_codes` where all are equally frequent. 0 before any id was seen.
    Fed as `CodebookUsage` is.

    Args:
        num_codes: int. Number of codebook entries.
        name: str.
    """

    def __init__(
        self, num_codes: int, name: str = "codebook_perplexity", **kwargs: Any
    ) -> None:
        super().__init__(num_codes, name, **kwargs)

    def result(self):
        total = ops.sum(self.counts)
        shares = ops.convert_to_tensor(self.counts) / ops.maximum(total, 1e-7)
        # A code of share 0 adds 0: the limit of p log p.
        logs = ops.log(ops.where(shares > 0, shares, 1.0))
        return ops.where(total > 0, ops.exp(-ops.sum(shares * logs)), 0.0)


def recall(scores: Tensor, count: int, right: Tensor | None = None) -> Tensor:
    """Retrieval's recall at `count`: how often a right one is among the best.

    A wrong one of the same score counts as better: what cannot tell has found nothing.

    Args:
        scores: float `(queries, candidates)`.
        count: int. How many are looked at.
        right: bool `(queries, candidates)`: which candidates are right, of each row one
            or more. None where it is that of column i for row i.

    Returns:
        float32 scalar in `[0, 1]`.

    Example:
        >>> scores = [[0.9, 0.1, 0.3], [0.5, 0.4, 0.2], [0.7, 0.7, 0.7]]
        >>> [round(float(recall(scores, count)), 2) for count in (1, 2, 3)]
        [0.33, 0.67, 1.0]
    """
    scores = ops.convert_to_tensor(scores, "float32")
    if right is None:
        right = ops.eye(*ops.shape(scores), dtype="bool")
    best = ops.max(ops.where(right, scores, -np.inf), axis=1, keepdims=True)
    better = ops.logical_and(scores >= best, ops.logical_not(right))
    others = ops.sum(ops.cast(better, "int32"), axis=1)
    return ops.mean(ops.cast(others < count, "float32"))
