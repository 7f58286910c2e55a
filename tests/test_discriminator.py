"""StyleGAN2's discriminator: its blur, scales and groups, by NumPy and SciPy."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage, signal

from keras_parti import layers
from keras_parti.layers.discriminator import blur
from keras_parti.models import Discriminator, DiscriminatorConfig

TAPS = np.array([1.0, 3.0, 3.0, 1.0]) / 8


def wave(*shape):
    return np.sin(np.arange(np.prod(shape)) * 1.3, dtype="float32").reshape(shape)


def filtered(image, kernel, zeros):
    """One channel, with zeros around it, filtered where the kernel fits."""
    return signal.correlate2d(np.pad(image, zeros), kernel, "valid")


@pytest.mark.parametrize("stride", [1, 2])
def test_the_blur_is_a_convolution_by_1_3_3_1(stride):
    images = wave(2, 6, 10, 3)
    got = ops.convert_to_numpy(blur(images, (2, 1), stride))
    for i in range(2):
        for c in range(3):
            expected = filtered(images[i, :, :, c], np.outer(TAPS, TAPS), ((2, 1),) * 2)
            expected = expected[::stride, ::stride]
            np.testing.assert_allclose(got[i, :, :, c], expected, atol=1e-6)


def test_the_blur_keeps_what_is_constant():
    inside = ops.convert_to_numpy(blur(np.full((1, 9, 9, 2), 0.7, "float32"), (0, 0)))
    np.testing.assert_allclose(inside, 0.7, rtol=1e-6)


@pytest.mark.parametrize(("side", "zeros"), [(3, 2), (1, 1)])
def test_a_halving_convolution_blurs_convolves_and_takes_every_second_pixel(
    side, zeros
):
    layer = layers.EqualizedConv(2, side, downsample=True)
    images = wave(1, 6, 10, 3)
    layer.build(images.shape)
    kernel, bias = wave(side, side, 3, 2) + 0.1, np.array([0.3, -0.2], "float32")
    layer.set_weights([kernel, bias])
    expected = np.zeros((3, 5, 2))
    for o in range(2):
        for c in range(3):
            blurred = filtered(images[0, :, :, c], np.outer(TAPS, TAPS), zeros)
            expected[:, :, o] += signal.correlate2d(
                blurred, kernel[:, :, c, o] / np.sqrt(3 * side**2), "valid"
            )[::2, ::2]
    expected += bias
    expected = np.sqrt(2) * np.maximum(expected, 0.2 * expected)
    got = ops.convert_to_numpy(layer(images))[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_halving_convolution_moves_nothing():
    """The centre of mass of a spot, in pixels of the smaller map."""
    spot = np.zeros((1, 32, 32, 1), "float32")
    spot[0, 12:14, 20:22] = 1.0
    for side in (1, 3):
        layer = layers.EqualizedConv(1, side, True, "linear", use_bias=False)
        layer.build(spot.shape)
        kernel = np.zeros((side, side, 1, 1), "float32")
        kernel[side // 2, side // 2] = side
        layer.set_weights([kernel])
        half = ops.convert_to_numpy(layer(spot))[0, :, :, 0]
        assert half.sum() == pytest.approx(1.0, rel=1e-5)
        np.testing.assert_allclose(ndimage.center_of_mass(half), (6.0, 10.0), atol=1e-4)


def test_all_layers_keep_the_variance_of_normal_inputs():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 32, 32, 64)).astype("float32")
    for layer in (layers.EqualizedConv(64), layers.EqualizedConv(64, 1)):
        outputs = ops.convert_to_numpy(layer(images))[:, 1:-1, 1:-1]
        assert np.square(outputs).mean() == pytest.approx(1.0, rel=0.1)
    rows = rng.normal(size=(300, 64)).astype("float32")
    outputs = ops.convert_to_numpy(layers.EqualizedDense(64, "leaky_relu")(rows))
    assert np.square(outputs).mean() == pytest.approx(1.0, rel=0.1)


def deviations(x, size):
    """One number a group of consecutive rows, for each of its rows."""
    groups = [x[i : i + size] for i in range(0, len(x), size)]
    return np.concatenate([[g.std(0).mean()] * len(g) for g in groups])


@pytest.mark.parametrize("rows", [1, 3, 6, 7])
def test_the_deviation_of_a_group_is_numpys(rows):
    x = wave(rows, 2, 5, 3)
    got = ops.convert_to_numpy(layers.MinibatchDeviation(3)(x))
    np.testing.assert_array_equal(got[..., :3], x)
    expected = np.broadcast_to(deviations(x, 3)[:, None, None], (rows, 2, 5))
    np.testing.assert_allclose(got[..., 3], expected, atol=2e-4)


def test_groups_lie_inside_the_halves_of_a_batch():
    x = wave(12, 2, 2, 3)
    layer = layers.MinibatchDeviation(3)
    halves = [ops.convert_to_numpy(layer(half)) for half in (x[:6], x[6:])]
    whole = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(np.concatenate(halves), whole, atol=1e-6)


def test_channels_are_those_of_stylegan2():
    large, small = DiscriminatorConfig(1024), DiscriminatorConfig(1024, 16384)
    sides = [1024, 512, 256, 128, 64, 32, 16, 8, 4]
    assert large.maps == sides
    channels = [32, 64, 128, 256, 512, 512, 512, 512, 512]
    assert [large.channels(side) for side in sides] == channels
    halves = [16, 32, 64, 128, 256, 512, 512, 512, 512]
    assert [small.channels(side) for side in sides] == halves


def test_equal_pictures_have_equal_logits_and_a_row_knows_its_group_only():
    keras.utils.set_random_seed(1)
    model = Discriminator.from_preset("discriminator_tiny")
    images = (wave(6, 12, 12, 3) + 1) / 2
    logits = ops.convert_to_numpy(model(images))
    assert logits.shape == (6,)
    others = np.concatenate([images[:4], 1 - images[4:]])
    moved = np.abs(ops.convert_to_numpy(model(others)) - logits)
    np.testing.assert_allclose(moved[:4], 0.0, atol=1e-6)
    assert moved[4:].min() > 1e-4
    alike = ops.convert_to_numpy(model(np.repeat(images[:1], 4, axis=0)))
    np.testing.assert_allclose(alike, alike[0], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 18}, "7 times a power of two.*Received: image_size=18"),
        ({"group_size": 0}, "`group_size` must be a positive integer"),
    ],
)
def test_impossible_sizes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DiscriminatorConfig(**fields)


def test_pictures_of_another_size_are_refused():
    model = Discriminator.from_preset("discriminator_tiny")
    with pytest.raises(ValueError, match=r"`images` must be \(batch, 12, 12, 3\)"):
        model(wave(2, 16, 16, 3))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="`activation` is leaky_relu or linear"):
        layers.EqualizedDense(3, "relu")
