"""Pictures inside a graph, on any backend; in NumPy see `keras_parti.pixels`."""

import keras


def to_uint8(images):
    """Rounds float images in `[0, 1]` to uint8 in `[0, 255]`."""
    return keras.ops.cast(keras.ops.round(images * 255.0), "uint8")


def to_floats(images):
    """Returns uint8 images as float32 in `[0, 1]`."""
    return keras.ops.cast(images, "float32") / 255.0
