"""What goes into an exported chain: files of pictures, and what is refused."""

import io
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_chain import columns, strings

from keras_parti.serving.graph_inputs import JPEG, PNG, read_picture
from keras_parti.serving.pictures import write_picture

TWO = columns(["a", "b"])
BAD = {
    "guidance": (
        "generate",
        TWO | {"guidance_scale": np.float32([1, 31])},
        "guidance_scale must lie in [0.0, 30.0]. Received: 31",
    ),
    "nan": (
        "generate_best",
        TWO | {"guidance_scale": np.float32([np.nan, 1])},
        "guidance_scale must lie in [0.0, 30.0]. Received: nan",
    ),
    "infinite": (
        "generate",
        TWO | {"temperature": np.float32([np.inf, 1])},
        "temperature must lie in [0.0, 10.0]. Received: inf",
    ),
    "cold": (
        "generate",
        TWO | {"temperature": np.float32([-0.5, 1])},
        "temperature must lie in [0.0, 10.0]. Received: -0.5",
    ),
    "top_k": (
        "generate",
        TWO | {"top_k": np.int32([-1, -2])},
        "top_k must lie in [0, 2147483647]. Received: [-1 -2]",
    ),
    "top_p": (
        "generate_best",
        TWO | {"top_p": np.float32([1.5, 1])},
        "top_p must lie in [0.0, 1.0]. Received: 1.5",
    ),
    "length": (
        "generate",
        TWO | {"seed": np.int64([1, 2, 3])},
        "seed must have one value, or one for each prompt. "
        "Received shape, and number of prompts: [3] [2]",
    ),
    "rank": (
        "generate",
        TWO | {"top_p": np.float32([[1, 1]])},
        "top_p must have one value, or one for each prompt. "
        "Received shape, and number of prompts: [1 2] [2]",
    ),
    "scalar": (
        "generate",
        TWO | {"seed": np.int64(3)},
        "seed must have one value, or one for each prompt. "
        "Received shape, and number of prompts: [] [2]",
    ),
    "prompts": (
        "generate",
        TWO | {"prompt": strings(b"a", b"b").reshape(1, 2)},
        "prompt must have shape (batch,). Received rank: [2]",
    ),
    "prompt": (
        "generate_best",
        TWO | {"prompt": np.array(b"a", object)},
        "prompt must have shape (batch,). Received rank: [0]",
    ),
    "ids": (
        "decode",
        {"ids": np.int32([[0] * 8 + [23]])},
        "ids must lie in [0, 22]. Received, among others: [0] [23]",
    ),
    "negative": (
        "decode",
        {"ids": np.int32([[0] * 8 + [-1]])},
        "ids must lie in [0, 22]. Received, among others: [-1] [0]",
    ),
    "short": (
        "decode",
        {"ids": np.zeros((9, 2), np.int32)},
        "ids must have shape (batch, 9). Received shape: [9 2]",
    ),
    "flat": (
        "decode",
        {"ids": np.zeros(9, np.int32)},
        "ids must have shape (batch, 9). Received shape: [9]",
    ),
    "deep": (
        "decode",
        {"ids": np.zeros((1, 3, 3), np.int32)},
        "ids must have shape (batch, 9). Received shape: [1 3 3]",
    ),
    "no picture": (
        "encode",
        {"image_bytes": strings(b"GIF89a")},
        "image_bytes must hold PNG or JPEG files. Received one of bytes: [6]",
    ),
    "empty file": (
        "encode",
        {"image_bytes": strings(b"")},
        "image_bytes must hold PNG or JPEG files. Received one of bytes: [0]",
    ),
    "head alone": (
        "encode",
        {"image_bytes": strings(PNG)},
        "image_bytes must hold pictures of 1 to 16777216 pixels. "
        "Received one with the sides: [0 0]",
    ),
    "bomb": (
        "encode",
        {
            "image_bytes": strings(
                write_picture(np.zeros((2, 2, 3), np.uint8)).replace(
                    b"\0\0\0\2\0\0\0\2", b"\0\0\x40\0\0\0\x40\0"
                )
            )
        },
        "image_bytes must hold pictures of 1 to 16777216 pixels. "
        "Received one with the sides: [16384 16384]",
    ),
    "torn PNG": (
        "encode",
        {"image_bytes": strings(write_picture(np.zeros((12, 12, 3), np.uint8))[:45])},
        "Invalid PNG",
    ),
    "torn JPEG": (
        "encode",
        {"image_bytes": strings(JPEG + b"123")},
        "Invalid JPEG data, size 6",
    ),
    "files": (
        "encode",
        {"image_bytes": np.array(b"", object)},
        "image_bytes must have shape (batch,). Received rank: [0]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_the_graph_with_what_is_allowed(exported_client, case):
    signature, inputs, words = BAD[case]
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        exported_client.predict(signature, inputs)
    assert "assertion failed" not in str(error.value)
    assert exported_client.predict("decode", {"ids": np.zeros((1, 9), np.int32)})


def picture(height, width, channels=3):
    values = np.sin(np.arange(height * width * channels) * 0.37) * 127 + 128
    return values.astype(np.uint8).reshape(height, width, channels)


def test_encode_and_decode_are_the_tokenizers(small_chain, exported_client):
    images = np.stack([picture(12, 12), 255 - picture(12, 12)])
    ids = np.asarray(small_chain.tokenizer.encode(images / np.float32(255)))
    np.testing.assert_array_equal(exported_client.encode(images), ids)
    np.testing.assert_array_equal(exported_client.decode(ids), small_chain.decode(ids))


def file_of(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparent_pixels_are_white(small_chain):
    pixels = picture(12, 12, 4)
    read = read_picture(file_of(Image.fromarray(pixels)), 12).numpy()
    colour, alpha = pixels[..., :3] / 255, pixels[..., 3:] / 255
    np.testing.assert_allclose(read, colour * alpha + 1 - alpha, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGB", "RGBA"])
def test_every_kind_of_png_is_read(mode):
    image = Image.fromarray(picture(12, 12)).convert(mode)
    read = read_picture(file_of(image), 12).numpy()
    expected = np.asarray(image.convert("RGB")) / 255
    np.testing.assert_allclose(read, expected, atol=1e-6)


def test_sixteen_bits_are_read_as_eight():
    grey = picture(12, 12)[:, :, 0]
    content = file_of(Image.fromarray(grey.astype(np.uint16) * 257))
    read = read_picture(content, 12).numpy()
    np.testing.assert_allclose(read, np.stack([grey] * 3, axis=-1) / 255, atol=1e-6)


def test_transparent_palette_entry_is_white():
    image = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12) % 5)
    image = image.convert("P", palette=Image.Palette.WEB)
    read = read_picture(file_of(image, transparency=0), 12).numpy()
    seen = (read == 1).all(axis=-1)
    np.testing.assert_array_equal(seen, np.asarray(image) == 0)


@pytest.mark.parametrize("size", [(37, 19), (5, 5), (12, 13)])
def test_other_sizes_are_resized_and_smoothed(size):
    image = picture(*size)
    read = read_picture(write_picture(image), 12).numpy()
    expected = tf.image.resize(image / np.float32(255), [12, 12], antialias=True)
    np.testing.assert_allclose(read, np.clip(expected, 0, 1), atol=1e-6)
    flat = read_picture(write_picture(np.full_like(image, 51)), 12)
    np.testing.assert_allclose(flat, 0.2, atol=1e-6)


def test_jpeg_is_read():
    content = file_of(Image.fromarray(picture(12, 12)), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    read = read_picture(content, 12).numpy() * 255
    np.testing.assert_allclose(read, expected, atol=1.01)
