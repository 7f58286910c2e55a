"""Tiles of a picture are the picture: no seam, at any size, in little memory."""

import keras
import numpy as np
import pytest

from keras_parti import models
from keras_parti.models import upscale_tiled

CONFIGS = {
    "a": {"scale": 3, "num_blocks": 2},
    "b": {"scale": 2, "num_blocks": 3, "block": "b"},
    "staged": {"scale": 4, "num_blocks": 1, "staged": True},
}


def model_of(kind):
    model = models.WDSR(models.WDSRConfig(**CONFIGS[kind], filters=5, expansion=3))
    for weight in model.weights:
        wave = np.sin(np.arange(np.prod(weight.shape)), dtype="float32")
        weight.assign(weight + 0.3 * wave.reshape(weight.shape))
    return model


def picture(height, width):
    values = np.sin(0.7 * np.arange(height * width * 3) ** 1.1)
    return (0.5 + 0.5 * values).astype("float32").reshape(height, width, 3)


def whole(model, image):
    return keras.ops.convert_to_numpy(model.upscale(image[None]))[0]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("shape", "tile"),
    # Larger than a window along both axes, along one, and along none.
    [((53, 47), 11), ((61, 5), 13), ((3, 2), 7), ((1, 1), 1)],
)
def test_tiles_are_the_whole_picture(kind, shape, tile):
    model, image = model_of(kind), picture(*shape)
    got = upscale_tiled(model, image, tile)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, whole(model, image), atol=2e-5)


def test_a_smaller_overlap_would_be_seen():
    model, image = model_of("a"), picture(53, 47)

    class Nearer:
        """The same model, that says it sees less far."""

        scale = model.scale
        upscale = staticmethod(model.upscale)

        class config:
            radius = model.config.radius - 1

    error = np.abs(upscale_tiled(Nearer, image, 11) - whole(model, image))
    assert error.max() > 1e-4


def test_8_bits_stay_8_bits_rounded():
    model = model_of("b")
    image = np.rint(picture(23, 19) * 255).astype("uint8")
    got = upscale_tiled(model, image, 7)
    assert got.dtype == np.uint8
    expected = np.rint(whole(model, image.astype("float32") / 255) * 255)
    assert np.abs(got - expected).max() <= 1  # where a half is rounded
    assert (got == expected).mean() > 0.999


def test_no_window_is_larger_than_a_tile_and_what_is_around():
    model, sizes = model_of("b"), set()

    def upscale(images):
        sizes.add(images.shape)
        return np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)

    image = (np.indices((2000, 1500)).sum(0) % 251).astype("uint8")
    image = np.repeat(image[..., None], 3, axis=-1)
    out = np.zeros((4000, 3000, 3), "uint8")
    assert upscale_tiled(model, image, 128, upscale, out) is out
    side = 128 + 2 * model.config.radius
    assert sizes == {(1, side, side, 3)}  # so that one shape is compiled for
    np.testing.assert_array_equal(out[::2, 1::2], image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 7), "uint8"), r"\(height, width, 3\).*shape \(5, 7\)"),
        (np.zeros((5, 7, 4), "uint8"), r"\(height, width, 3\).*shape \(5, 7, 4\)"),
        (np.zeros((0, 7, 3), "uint8"), r"of a pixel or more.*shape \(0, 7, 3\)"),
        (np.zeros((5, 7, 3), "int32"), r"uint8, or float in \[0, 1\].*int32"),
    ],
)
def test_what_is_no_rgb_picture_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        upscale_tiled(model_of("b"), image)


def test_impossible_arguments_are_refused():
    model, image = model_of("b"), np.zeros((5, 7, 3), "uint8")
    with pytest.raises(ValueError, match=r"positive\. Received: tile=0"):
        upscale_tiled(model, image, 0)
    with pytest.raises(ValueError, match=r"uint8 \(10, 14, 3\)\. Received: float32"):
        upscale_tiled(model, image, out=np.zeros((10, 14, 3), "float32"))
