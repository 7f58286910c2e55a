"""WDSR: its equations, its published counts, how far a pixel reaches."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti import models, presets
from keras_parti.models.wdsr import MEAN

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

SMALL = {"num_blocks": 2, "filters": 5, "expansion": 3}
CONFIGS = {
    "a": {**SMALL, "scale": 3},
    "b": {**SMALL, "scale": 2, "block": "b"},
    "staged": {**SMALL, "scale": 4, "staged": True},
}
every_kind = pytest.mark.parametrize("kind", CONFIGS)


def wave(*shape):
    return np.sin(np.arange(np.prod(shape)), dtype="float32").reshape(shape)


def pictures(*shape):
    return 0.5 + 0.5 * wave(*shape, 3)


def model_of(kind, **kwargs):
    model = models.WDSR(models.WDSRConfig(**CONFIGS[kind]), **kwargs)
    for weight in model.weights:
        weight.assign(weight + 0.3 * wave(*weight.shape))
    return model


def conv(x, kernel, bias):
    """A convolution with zeros around, in NumPy."""
    side = kernel.shape[0]
    around = side // 2
    x = np.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    out = sum(
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(side)
        for j in range(side)
    )
    return out + bias


def shuffle(x, s):
    """The pixel (s·y + i, s·x + j) is channel (i, j, colour) of (y, x)."""
    batch, height, width, channels = x.shape
    out = np.zeros((batch, s * height, s * width, channels // s**2), x.dtype)
    for i in range(s):
        for j in range(s):
            first = (s * i + j) * out.shape[-1]
            out[:, i::s, j::s] = x[..., first : first + out.shape[-1]]
    return out


def apply(layer, x):
    v, g, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    return conv(x, g * v / np.sqrt((v**2).sum((0, 1, 2))), bias)


@every_kind
def test_a_model_is_its_equations(kind):
    model = model_of(kind)
    images = pictures(2, 3, 5)
    centred = images.astype("float64") - MEAN
    x = apply(model.head, centred)
    for i, block in enumerate(model.blocks):
        inside = np.maximum(apply(block.convs[0], x), 0)
        for layer in block.convs[1:]:
            inside = apply(layer, inside)
        x = x + inside
        if kind == "staged" and i % 2:
            x = shuffle(apply(model.enlarging[i // 2], x), 2)
    x = apply(model.tail, x)
    if kind != "staged":
        x = shuffle(x, model.scale)
    x = x + shuffle(apply(model.skip, centred), model.scale) + MEAN
    got = model(images)["images"]
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.upscale(images), np.clip(got, 0, 1))


@pytest.mark.parametrize("normalized", [True, False])
@every_kind
def test_an_untrained_model_enlarges_bicubically(kind, normalized):
    model = models.WDSR(
        models.WDSRConfig(**CONFIGS[kind], weight_normalized=normalized)
    )
    images = pictures(2, 7, 9)
    got = ops.convert_to_numpy(model(images)["images"])
    inside = slice(2 * model.scale, -2 * model.scale)
    # TensorFlow's own looks the polynomial up in a table, 6e-4 beside it.
    expected = keras.ops.image.resize(
        images, got.shape[1:3], "bicubic", data_format="channels_last"
    )
    np.testing.assert_allclose(
        got[:, inside, inside], expected[:, inside, inside], atol=2e-3
    )


def closed_form(c):
    """Weights of every convolution: kernel, and g and bias of each channel."""

    def conv(side, inputs, outputs):
        return side**2 * inputs * outputs + 2 * outputs

    n, wide, pixels = c.filters, c.filters * c.expansion, 3 * c.scale**2
    if c.block == "a":
        block = conv(3, n, wide) + conv(3, wide, n)
    else:
        low = math.floor(0.8 * n)
        block = conv(1, n, wide) + conv(1, wide, low) + conv(3, low, n)
    total = conv(3, 3, n) + conv(5, 3, pixels)
    if not c.staged:
        return total + c.num_blocks * block + conv(3, n, pixels)
    stage = c.num_blocks * block + conv(3, n, 4 * n)
    return total + math.log2(c.scale) * stage + conv(3, n, 3)


@every_kind
def test_the_blocks_of_a_stage_begin_with_gains_that_add_up_to_one(kind):
    config = models.WDSRConfig(**{**CONFIGS[kind], "num_blocks": 7})
    model = models.WDSR(config)
    last = [np.asarray(block.convs[-1].g) for block in model.blocks]
    total = np.square(last).sum(axis=0)  # of each channel, over all blocks
    np.testing.assert_allclose(total, config.num_stages, rtol=1e-6)


@pytest.mark.parametrize("name", presets.WDSR)
def test_a_wdsr_counts_as_its_closed_form(name):
    config = models.WDSR.preset_config(name)
    assert presets.WDSR[name].params == closed_form(config)


def test_partis_upsamplers_have_about_the_counts_that_it_prints():
    for name, printed in (("wdsr_parti_x2", 15e6), ("wdsr_parti_x4", 30e6)):
        config = models.WDSR.preset_config(name)
        assert (config.num_blocks, config.filters) == (12, 128)
        assert presets.WDSR[name].params == pytest.approx(printed, rel=0.02)


@every_kind
def test_a_folded_model_has_the_same_pixels_and_a_folder_of_its_own(kind, tmp_path):
    model = model_of(kind)
    images = pictures(2, 7, 5)
    folded = model.fold()
    folded.save_dir(tmp_path)
    for one in (folded, models.WDSR.load_dir(tmp_path), folded.fold()):
        np.testing.assert_allclose(
            one(images)["images"], model(images)["images"], atol=1e-5
        )
    convolutions = len(model._convs())
    assert len(model.weights) == 3 * convolutions
    assert len(folded.weights) == 2 * convolutions


@every_kind
def test_the_radius_is_how_far_a_pixel_reaches_and_no_farther(kind):
    model = model_of(kind)
    radius, s = model.config.radius, model.scale
    side = 2 * radius + 3
    before = pictures(1, side, side)
    # In the middle, where zeros around the picture reach neither.
    middle = radius + 1
    at = slice(s * middle, s * (middle + 1))
    outputs = ops.convert_to_numpy(model(before)["images"])[0, at, at]
    for distance, expected in ((radius + 1, False), (radius, True)):
        changed = False
        for y, x in ((1, 0), (0, 1), (1, 1), (-1, 0), (0, -1), (1, -1)):
            after = before.copy()
            after[0, middle + y * distance, middle + x * distance] = 7.0
            got = ops.convert_to_numpy(model(after)["images"])[0, at, at]
            changed |= bool(np.abs(got - outputs).max() > 0)
        assert changed == expected, distance


@pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's own")
@every_kind
def test_one_graph_serves_all_batches_and_all_sizes(kind):
    import tensorflow as tf

    model = model_of(kind)
    graph = tf.function(model.upscale).get_concrete_function(
        tf.TensorSpec((None, None, None, 3), tf.float32)
    )
    # Down to a single pixel, less than any kernel.
    for shape in ((1, 1, 1), (3, 2, 7), (2, 11, 5)):
        images = pictures(*shape)
        got = graph(tf.constant(images))
        assert got.shape == (shape[0], *(model.scale * side for side in shape[1:]), 3)
        np.testing.assert_allclose(got, model.upscale(images), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0}, "`scale` must be a positive integer. Received: scale=0"),
        ({"block": "c"}, "`block` is one of a, b. Received: block='c'"),
        (
            {"scale": 6, "staged": True},
            "power of two where `staged`. Received: scale=6",
        ),
        (
            {"scale": 1, "staged": True},
            "power of two where `staged`. Received: scale=1",
        ),
    ],
)
def test_impossible_sizes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        models.WDSRConfig(**fields)


@pytest.mark.parametrize("shape", [(1, 5, 7, 1), (1, 5, 7, 4), (5, 7, 3)])
def test_what_is_not_rgb_is_refused(shape):
    model = models.WDSR.from_preset("wdsr_tiny")
    with pytest.raises(ValueError, match=r"must be \(batch, height, width, 3\). Rec"):
        model.upscale(np.zeros(shape, "float32"))
