"""PNG files written in bands: others read what was written, at any size."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from keras_parti.data.png import write_png
from keras_parti.models import WDSR, upscale_bands


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 9, 13]])
def test_pillow_reads_what_was_written(cuts, tmp_path):
    picture = noise(17, 11)
    write_png(tmp_path / "a.png", np.split(picture, cuts), 17, 11)
    with Image.open(tmp_path / "a.png") as found:
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_no_half_of_a_picture_is_left_and_what_was_there_stays(tmp_path):
    (tmp_path / "a.png").write_bytes(b"before")
    for bands, message in (
        ([noise(3, 5), noise(3, 5).astype("float32")], "Received: float32"),
        ([noise(3, 7)], r"\(rows, 5, 3\)\. Received: uint8 \(3, 7, 3\)"),
        ([noise(3, 5)], "must have 7 rows. Received: 3"),
    ):
        with pytest.raises(ValueError, match=message):
            write_png(tmp_path / "a.png", bands, 7, 5)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_an_enlarged_picture_is_never_whole_in_memory(tmp_path):
    """Nor is a second one of the small picture, as floats."""
    model, tile = WDSR.from_preset("wdsr_tiny"), 64
    height, width = 40 * tile, 5 * tile
    picture = noise(height, width)

    def upscale(images):
        return np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)

    tracemalloc.start()
    try:
        bands = upscale_bands(model, picture, tile, upscale)
        write_png(tmp_path / "a.png", bands, 2 * height, 2 * width)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    band = 4 * tile * width * 3
    assert most < 10 * band < 4 * picture.nbytes / 3
    with Image.open(tmp_path / "a.png") as found:
        np.testing.assert_array_equal(np.asarray(found)[1::2, ::2], picture)
