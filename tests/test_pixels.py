"""Pictures in NumPy: 8 bits and floats are two forms of the same, and others named."""

import numpy as np
import pytest

from keras_parti.pixels import check_pictures, to_floats, to_uint8


def test_all_256_values_survive_the_round_trip():
    values = np.arange(256, dtype=np.uint8)
    floats = to_floats(values)
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(to_uint8(floats), values)
    np.testing.assert_array_equal(to_uint8(values), values)
    np.testing.assert_array_equal(to_floats(floats), floats)


def test_a_float_becomes_the_nearest_of_256_values():
    floats = np.random.default_rng(0).random(997)
    assert np.abs(to_uint8(floats) / 255.0 - floats).max() <= 0.5 / 255.0 + 1e-12


@pytest.mark.parametrize(
    ("images", "rank", "message"),
    [
        (np.zeros((2, 3, 5, 4)), 4, r"\(batch, height, .*shape \(2, 3, 5, 4\)"),
        (np.zeros((3, 5, 3)), 4, r"shape \(3, 5, 3\)"),
        (np.zeros((3, 0, 3)), 3, r"`it` must be \(height, .*shape \(3, 0, 3\)"),
        (np.zeros((3, 5, 3), "int64"), 3, "uint8, or float.*int64"),
    ],
)
def test_what_is_no_picture_is_named(images, rank, message):
    with pytest.raises(ValueError, match=message):
        check_pictures(images, "it", rank)
