"""Weight normalisation equals that of tensorflow-addons; pixel shuffle inverts."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.layers import PixelShuffle, WeightNormalizedConv

# What tensorflow-addons itself wrote; `make.py` beside them is how.
GOLDENS = Path(__file__).parent / "goldens" / "weight_normalization"
every_kernel = pytest.mark.parametrize("side", [1, 3])
NAMES = ("v", "g", "bias")


def golden(side):
    with np.load(GOLDENS / f"kernel_{side}.npz") as arrays:
        return dict(arrays)


def layer_of(side, **weights):
    """A layer of the golden weights, some of them replaced."""
    arrays = {**golden(side), **weights}
    layer = WeightNormalizedConv(arrays["v"].shape[-1], side)
    layer.build(arrays["inputs"].shape)
    layer.set_weights([arrays[name] for name in NAMES])
    return layer, arrays


@every_kernel
def test_outputs_are_those_of_tensorflow_addons(side):
    layer, expected = layer_of(side)
    got = layer(expected["inputs"])
    np.testing.assert_allclose(got, expected["outputs"], rtol=1e-5, atol=1e-5)


@every_kernel
def test_with_the_norm_as_gain_the_kernel_is_v(side):
    """Where tensorflow-addons begins when it is not to look at data."""
    expected = golden(side)
    layer, _ = layer_of(side, g=expected["norm"])
    np.testing.assert_allclose(layer.kernel(), expected["v"], atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes gradients")
@every_kernel
def test_gradients_and_a_step_of_adam_are_those_of_tensorflow_addons(side):
    import tensorflow as tf

    layer, expected = layer_of(side)
    variables = [getattr(layer, name) for name in NAMES]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(expected["loss_weights"] * layer(expected["inputs"]))
    gradients = tape.gradient(loss, [v.value for v in variables])
    for name, gradient in zip(NAMES, gradients, strict=True):
        np.testing.assert_allclose(
            gradient, expected[f"gradient_{name}"], rtol=1e-4, atol=1e-4, err_msg=name
        )
    keras.optimizers.Adam(0.01).apply(gradients, variables)
    for name, variable in zip(NAMES, variables, strict=True):
        np.testing.assert_allclose(
            variable, expected[f"step_{name}"], rtol=1e-5, atol=1e-5, err_msg=name
        )
    np.testing.assert_allclose(
        layer(expected["inputs"]), expected["step_outputs"], rtol=1e-4, atol=1e-4
    )


@every_kernel
def test_it_takes_from_data_what_tensorflow_addons_takes(side):
    filters = golden(side)["v"].shape[-1]
    fresh = {"g": np.ones(filters), "bias": np.zeros(filters)}
    layer, expected = layer_of(side, **fresh)
    layer.initialize_from(expected["inputs"])
    np.testing.assert_allclose(layer.g, expected["data_g"], rtol=1e-5)
    np.testing.assert_allclose(layer.bias, expected["data_bias"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        layer(expected["inputs"]), expected["data_outputs"], rtol=1e-4, atol=1e-5
    )


def test_from_data_with_directions_of_unit_norm_outputs_are_standardised():
    v = golden(3)["v"]
    filters = v.shape[-1]
    v = v / np.sqrt(np.square(v).sum((0, 1, 2)))
    layer, arrays = layer_of(3, v=v, g=np.ones(filters), bias=np.zeros(filters))
    layer.initialize_from(arrays["inputs"])
    outputs = ops.convert_to_numpy(layer(arrays["inputs"]))
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 1, atol=1e-4)


def test_the_length_of_v_changes_nothing():
    layer, arrays = layer_of(3)
    other, _ = layer_of(3, v=7.0 * arrays["v"])
    np.testing.assert_allclose(
        layer(arrays["inputs"]), other(arrays["inputs"]), rtol=1e-4, atol=1e-5
    )


def test_a_shuffle_puts_each_channel_where_its_pixel_is():
    scale, height, width, channels = 3, 2, 5, 7
    shape = (2, height, width, scale**2 * channels)
    inputs = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    outputs = ops.convert_to_numpy(PixelShuffle(scale)(inputs))
    assert outputs.shape == (2, scale * height, scale * width, channels)
    for y in range(scale * height):
        for x in range(scale * width):
            first = channels * (scale * (y % scale) + x % scale)
            expected = inputs[:, y // scale, x // scale, first : first + channels]
            np.testing.assert_array_equal(outputs[:, y, x], expected)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match=r"must be odd. Received: kernel_size=4"):
        WeightNormalizedConv(3, 4)
    with pytest.raises(
        ValueError, match=r"`scale` must be positive. Received: scale=0"
    ):
        PixelShuffle(0)
    with pytest.raises(ValueError, match=r"multiple of 2², .* Received: shape"):
        PixelShuffle(2)(np.zeros((1, 3, 5, 6), "float32"))
