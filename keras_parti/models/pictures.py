"""Pictures at the edge of a model: uint8 arrays outside, floats in `[0, 1]` inside."""

import keras
import numpy as np


def check_images(images, side=None):
    """Returns pictures as a uint8 array `(batch, height, width, 3)`.

    Args:
        images: array.
        side: int, pixels of height and width; None is any.

    Raises:
        ValueError: where they are of another type or shape.
    """
    images = np.asarray(images)
    sides = images.shape[1:3] if side is None else (side, side)
    if images.dtype != np.uint8 or images.shape[1:] != (*sides, 3):
        side = side or "side"
        raise ValueError(
            f"`images` must be uint8 (batch, {side}, {side}, 3). "
            f"Received: {images.dtype} of shape {images.shape}"
        )
    return images


def to_uint8(images):
    """Rounds float images in `[0, 1]` to uint8 in `[0, 255]`."""
    return keras.ops.cast(keras.ops.round(images * 255.0), "uint8")


def to_floats(images):
    """Returns uint8 images as float32 in `[0, 1]`."""
    return keras.ops.cast(images, "float32") / 255.0
