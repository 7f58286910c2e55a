"""Pictures in NumPy: what is one, and its values in 8 bits or as floats in `[0, 1]`."""

import numpy as np

SHAPES = {3: "(height, width, 3)", 4: "(batch, height, width, 3)"}


def check_pictures(images, name="images", rank=4):
    """Returns one picture or several as an array, uint8 or of floats.

    Args:
        images: array.
        name: str. The caller's argument, for the message.
        rank: int. 3 for one picture, 4 for a batch.

    Raises:
        ValueError: where they are of another type or shape, or empty.
    """
    images = np.asarray(images)
    if images.ndim != rank or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(
            f"`{name}` must be {SHAPES[rank]}, RGB, with at least one picture of a "
            f"pixel or more. Received: shape {images.shape}"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"`{name}` must be uint8, or float in [0, 1]. "
            f"Received: dtype {images.dtype}"
        )
    return images


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
    """Rounds floats in `[0, 1]` to uint8; uint8 stays as it is."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    return np.rint(images * 255.0).astype(np.uint8)


def to_floats(images):
    """Returns uint8 as float32 in `[0, 1]`; floats become float32."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255.0)
    return images.astype(np.float32, copy=False)
