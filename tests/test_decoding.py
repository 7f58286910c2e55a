"""Picture files of every kind become what a photographer would expect, or an error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from keras_parti.data.decoding import MAX_PIXELS, PictureError, decode_picture

HEIGHT, WIDTH = 11, 17
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
PIXELS = np.stack([ROWS * 20, COLUMNS * 13, 255 - ROWS * 20], -1).astype(np.uint8)
RGB = Image.fromarray(PIXELS)


def file(picture, format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def written_png(width, height, depth, lines):
    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return png + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_colours_come_back_exactly(format):
    few = RGB.quantize(50).convert("RGB") if format == "GIF" else RGB
    decoded = decode_picture(file(few, format))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.asarray(few))


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(format):
    smooth = RGB.resize((170, 110), Image.Resampling.BICUBIC)
    decoded = decode_picture(file(smooth, format, quality=95)).astype(int)
    assert np.abs(decoded - np.asarray(smooth)).mean() < 3


def test_grey_is_the_same_in_all_channels():
    grey = RGB.convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, -1)
    np.testing.assert_array_equal(decode_picture(file(grey)), expected)
    ink = decode_picture(file(Image.new("1", (5, 3), 1)))
    assert (ink == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, :5] = 0
    picture = RGB.convert("RGBA")
    picture.putalpha(Image.fromarray(alpha))
    shown = decode_picture(file(picture.convert(mode)))
    assert (shown[:, :5] == 255).all()
    if mode == "RGBA":
        np.testing.assert_array_equal(shown[:, 5:], PIXELS[:, 5:])


def test_half_transparent_is_half_way_to_white():
    half = Image.new("RGBA", (2, 2), (0, 100, 200, 128))
    expected = np.array([0, 100, 200]) * 128 / 255 + 127
    assert np.abs(decode_picture(file(half)) - expected).max() <= 1


def test_hidden_colours_do_not_leak_when_a_picture_is_reduced():
    pixels = np.zeros((40, 40, 4), np.uint8)  # hidden black
    pixels[::2, :, :] = 255  # visible white
    picture = Image.fromarray(pixels)
    assert (decode_picture(file(picture), shortest=10) == 255).all()


def test_a_colour_marked_as_transparent_is_white():
    flat = Image.new("RGB", (4, 3), (9, 8, 7))
    assert (decode_picture(file(flat, transparency=(9, 8, 7))) == 255).all()


def test_16_bits_keep_their_high_byte():
    deep = (ROWS * 6000 + 17).astype(np.uint16)
    for format in ("PNG", "TIFF"):
        decoded = decode_picture(file(Image.fromarray(deep), format))
        assert np.abs(decoded[..., 0] - deep / 257).max() <= 0.5
    floats = Image.fromarray((ROWS / 10).astype(np.float32))
    decoded = decode_picture(file(floats, "TIFF"))
    assert np.abs(decoded[..., 1] - ROWS * 25.5).max() <= 0.5


def test_16_bit_colour_keeps_its_high_byte():
    # Pillow reads such files and does not write them.
    deep = (PIXELS.astype(">u2") * 256 + 77).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in deep)

    png = written_png(WIDTH, HEIGHT, 16, lines)
    assert np.abs(decode_picture(png).astype(int) - PIXELS).max() <= 1


def test_cmyk_is_seen_as_printed():
    inks = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for format in ("JPEG", "TIFF"):
        red, green, blue = decode_picture(file(inks, format))[4, 4].astype(int)
        assert red < 30, "cyan ink takes the red away"
        assert green > 100
        assert blue > 100


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_stand_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # How a camera stores a scene that looks like PIXELS: TIFF 6.0, tag 274.
    stored = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, 1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS, -1),
    }[orientation]
    png = file(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(decode_picture(png), PIXELS)


def test_turned_16_bit_pictures_stand_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.rot90((ROWS * 20).astype(np.uint16) * 257, 1)
    png = file(Image.fromarray(np.ascontiguousarray(deep)), exif=exif)
    np.testing.assert_array_equal(decode_picture(png)[..., 0], PIXELS[..., 0])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_shows_its_first_frame(format):
    first, second = (Image.new("RGB", (6, 5), c) for c in ("black", "white"))
    animation = file(first, format, save_all=True, append_images=[second])
    assert decode_picture(animation).max() < 5


def test_interlaced_and_progressive_pictures_are_whole():
    smooth = RGB.resize((170, 110), Image.Resampling.BICUBIC)
    plain = decode_picture(file(smooth, "JPEG"))
    progressive = decode_picture(file(smooth, "JPEG", progressive=True))
    np.testing.assert_array_equal(plain, progressive)
    gif = file(RGB.quantize(50), "GIF", interlace=1)
    np.testing.assert_array_equal(
        decode_picture(gif), np.asarray(RGB.quantize(50).convert("RGB"))
    )


def test_the_profile_of_srgb_and_a_damaged_one_change_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decode_picture(file(RGB, icc_profile=srgb))
    np.testing.assert_array_equal(same, PIXELS)
    broken = decode_picture(file(RGB, icc_profile=b"no profile"))
    np.testing.assert_array_equal(broken, PIXELS)


def test_colours_of_another_profile_become_srgb():
    # sRGB's profile under another name, with its red and green primaries exchanged.
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"...."), (b"gXYZ", b"rXYZ"), (b"....", b"gXYZ")):
        swapped = swapped.replace(old, new)
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    shown = decode_picture(file(RGB, icc_profile=swapped)).astype(int)
    assert np.abs(shown - PIXELS[..., [1, 0, 2]]).max() <= 2


def test_large_pictures_are_reduced_by_means_over_areas():
    large = np.kron(PIXELS, np.ones((12, 12, 1), np.uint8))
    png = file(Image.fromarray(large))
    np.testing.assert_array_equal(decode_picture(png, shortest=HEIGHT), PIXELS)
    assert decode_picture(png, shortest=HEIGHT * 7).shape == large.shape
    jpeg = decode_picture(file(Image.fromarray(large), "JPEG"), shortest=HEIGHT)
    assert HEIGHT <= min(jpeg.shape[:2]) < 2 * HEIGHT


UNREADABLE = {
    "nothing": (b"", "empty"),
    "text": (b"a letter, not a picture", "no picture"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    "no pixels": (written_png(0, 5, 8, b""), None),
    "bomb": (written_png(60_000, 60_000, 8, b""), f"limit of {MAX_PIXELS:,} pixels"),
    "just above": (written_png(10_000, 9_000, 8, b""), f"limit of {MAX_PIXELS:,}"),
    "half a PNG": (file(RGB)[:-40], "truncated|broken"),
    "half a JPEG": (file(RGB.resize((300, 300)), "JPEG")[:-900], "truncated"),
    "half a GIF": (file(RGB, "GIF")[:60], None),
    "half a WebP": (file(RGB, "WEBP")[:-30], None),
    "half a TIFF": (file(RGB, "TIFF")[:50], None),
}


@pytest.mark.parametrize(("content", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_says_why(content, words):
    with pytest.raises(PictureError, match=words):
        decode_picture(content)


def test_damage_anywhere_is_never_another_exception():
    rng = np.random.default_rng(0)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        good = np.frombuffer(file(RGB, format), np.uint8)
        for _ in range(60):
            bad = good.copy()
            bad[rng.integers(len(bad), size=3)] = rng.integers(256, size=3)
            try:
                shown = decode_picture(bad[: rng.integers(1, len(bad))].tobytes())
            except PictureError:
                continue
            assert shown.ndim == 3
