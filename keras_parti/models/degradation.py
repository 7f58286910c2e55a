"""What an upsampler is trained and measured on: originals, made small in some way."""

import functools

import keras
import numpy as np
from keras import ops


def shrink(images, scale):
    """Makes pictures smaller, as the pairs of super-resolution are made.

    Bicubic with antialiasing, as MATLAB's `imresize`, then rounded to 8 bits, as a file
    would hold them.

    Args:
        images: float `(batch, height, width, 3)`, RGB in `[0, 1]`, both sides multiples
            of `scale`.
        scale: int. Pixels that become one, along each side.

    Returns:
        float32 `(batch, height / scale, width / scale, 3)`, in steps of 1/255.

    Raises:
        ValueError: a side is no multiple of `scale`.
    """
    _check_sides(images, scale)
    # Products, because XLA has no form of TensorFlow's own resizing with antialiasing.
    rows, columns = (_cubic_weights(side, scale) for side in images.shape[1:3])
    small = ops.einsum("rh,bhwc->brwc", rows, images)
    small = ops.einsum("sw,brwc->brsc", columns, small)
    return ops.round(ops.clip(small, 0.0, 1.0) * 255.0) / 255.0


def shrink_to_tokens(images, scale, tokenizer):
    """Makes pictures smaller as Parti's upsampler sees them.

    The nearest pixels, then what a frozen tokenizer makes of them: its ids, decoded.

    Args:
        images: float `(batch, height, width, 3)`, RGB in `[0, 1]`, both sides `scale`
            times those of the tokenizer.
        scale: int. Pixels of which one is taken, along each side.
        tokenizer: `ViTVQGAN`.

    Returns:
        float32 `(batch, height / scale, width / scale, 3)` in `[0, 1]`.

    Raises:
        ValueError: the sides do not fit.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), figure 4
    """
    _check_sides(images, scale)
    # Where the middle of a square lies between pixels: the one behind it, as in
    # `tf.image.resize`.
    first = scale // 2
    return tokenizer.reconstruct(images[:, first::scale, first::scale])


def enlarge(images, scale, interpolation="bicubic"):
    """Returns pictures enlarged without a model, clipped to `[0, 1]`.

    Args:
        images: float `(batch, height, width, 3)`, RGB in `[0, 1]`.
        scale: int. Output pixels an input pixel, along each side.
        interpolation: "bicubic" or "nearest".
    """
    height, width = images.shape[1:3]
    large = keras.ops.image.resize(
        images,
        (scale * height, scale * width),
        interpolation,
        data_format="channels_last",
    )
    return ops.clip(large, 0.0, 1.0)


@functools.cache
def _cubic_weights(size, scale):
    """Returns what pixels of a side count in those of the smaller one.

    The cubic kernel of Keys with a = -1/2, `scale` times as wide, cut at the edges.

    Returns:
        float32 `(size / scale, size)`; each row sums to 1.
    """
    middles = (np.arange(size // scale) + 0.5) * scale
    x = np.abs(np.arange(size) + 0.5 - middles[:, None]) / scale
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")


def _check_sides(images, scale):
    if any(side % scale for side in images.shape[1:3]):
        raise ValueError(
            f"The sides of `images` must be multiples of the scale, {scale}. "
            f"Received: shape {tuple(images.shape)}"
        )
