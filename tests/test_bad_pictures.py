"""No picture file breaks a server, whatever it claims to be or unfolds into."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from bad_input import Sound, cases
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from serving_calls import OK, caller, predict
from small_chain import strings

from keras_parti.serving.pictures import write_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = np.random.default_rng(3).integers(0, 256, (13, 11, 3), dtype=np.uint8)


def request(*contents):
    return predict({"image_bytes": strings(*contents)}, "toy", "encode")


@pytest.fixture(scope="module")
def chain(exported_client):
    good = ("Predict", request(write_picture(PIXELS)))
    return Sound(caller(exported_client.address), good)


def file_of(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, content):
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(width, height, *chunks, depth=8, colour=2, interlaced=0):
    """A PNG that claims this size, with these chunks."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return SIGNATURE + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def rows(width, height, channels=3):
    """The compressed pixels of a black picture of this size."""
    line = bytes(1 + width * channels)
    packer = zlib.compressobj(9)
    parts = [packer.compress(line * 64) for _ in range(height // 64)]
    parts.append(packer.compress(line * (height % 64)) + packer.flush())
    return chunk(b"IDAT", b"".join(parts))


@functools.cache
def zeros():
    """Half a gigabyte of zeros, which takes a thousandth of that."""
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(512)]
    return b"".join([*parts, packer.flush()])


def jpeg(width, height):
    """A JPEG of few pixels that claims this size."""
    content = bytearray(file_of(Image.fromarray(PIXELS), "JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


GOOD_PNG = write_picture(PIXELS)
GOOD_JPEG = file_of(Image.fromarray(PIXELS), "JPEG")
PROGRESSIVE = file_of(Image.fromarray(PIXELS), "JPEG", progressive=True)
ONE_PIXEL = rows(1, 1)

REFUSED = {
    "nothing": b"",
    "one byte": b"\x89",
    "a PNG's first bytes": SIGNATURE,
    "a JPEG's first bytes": b"\xff\xd8\xff",
    "text": b"no picture",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "GIF": file_of(Image.fromarray(PIXELS), "GIF"),
    "BMP": file_of(Image.fromarray(PIXELS), "BMP"),
    "WebP": file_of(Image.fromarray(PIXELS), "WEBP"),
    "TIFF": file_of(Image.fromarray(PIXELS), "TIFF"),
    "a ZIP archive": b"PK\x03\x04" + bytes(100),
    "a PNG of no width": png(0, 5, ONE_PIXEL),
    "a PNG of no height": png(5, 0, ONE_PIXEL),
    "a PNG of 2³¹-1 pixels a side": png(2**31 - 1, 2**31 - 1, ONE_PIXEL),
    "a PNG of 2³² - 1 pixels a side": png(2**32 - 1, 2**32 - 1, ONE_PIXEL),
    "a PNG of 2³² × 2³² modulo 2⁶⁴": png(2**31, 2**31, ONE_PIXEL),
    "a PNG of 65,535 pixels a side": png(65535, 65535, ONE_PIXEL),
    "a PNG of 4,097 pixels a side": png(4097, 4097, rows(4097, 4097)),
    "a PNG of one long line": png(2**25, 1, ONE_PIXEL),
    "a PNG of one long column": png(1, 2**25, ONE_PIXEL),
    "a PNG without pixels": png(5, 5),
    "a PNG whose first chunk is another": SIGNATURE
    + chunk(b"IDAT", b"")
    + GOOD_PNG[8:],
    "a PNG of an unknown colour": png(5, 5, rows(5, 5), colour=5),
    "a PNG of an unknown depth": png(5, 5, rows(5, 5), depth=7),
    "a PNG with a palette that is missing": png(5, 5, rows(5, 5, 1), colour=3),
    "a PNG whose pixels do not unfold": png(5, 5, chunk(b"IDAT", b"zzzzzzzz")),
    "a PNG with a wrong check": GOOD_PNG[:30] + b"zz" + GOOD_PNG[32:],
    "a JPEG of 65,500 pixels a side": jpeg(65500, 65500),
    "a JPEG of no height": jpeg(11, 0),
    "a JPEG of no width": jpeg(0, 13),
    "a JPEG without an end": GOOD_JPEG[:200],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_of_sensible_size_is_refused(chain, case):
    chain.refuses("Predict", request(REFUSED[case]))
    # Nor does it pass between two good ones.
    chain.refuses("Predict", request(GOOD_PNG, REFUSED[case], GOOD_JPEG))


# Made when they are needed, because some take a second.
BORNE = {
    "a PNG of 16 million pixels": lambda: png(4096, 4096, rows(4096, 4096)),
    "512 MB of pixels in a PNG of 4": lambda: png(2, 2, chunk(b"IDAT", zeros())),
    "512 MB of text in a PNG": lambda: png(
        1, 1, chunk(b"zTXt", b"a\0\0" + zeros()), ONE_PIXEL
    ),
    "512 MB of colour profile in a PNG": lambda: png(
        1, 1, chunk(b"iCCP", b"a\0\0" + zeros()), ONE_PIXEL
    ),
    "100,000 texts in a PNG": lambda: png(
        1, 1, chunk(b"tEXt", b"a\0b") * 100_000, ONE_PIXEL
    ),
    "100,000 pieces of pixels in a PNG": lambda: png(
        1, 1, chunk(b"IDAT", b"") * 100_000, ONE_PIXEL
    ),
    "a megabyte behind a PNG": lambda: GOOD_PNG + bytes(1 << 20),
    "a megabyte behind a JPEG": lambda: GOOD_JPEG + bytes(1 << 20),
    "comments of 6 MB in a JPEG": lambda: (
        GOOD_JPEG[:2] + (b"\xff\xfe\xff\xff" + bytes(65533)) * 100 + GOOD_JPEG[2:]
    ),
    "1,000 scans in a JPEG": lambda: (
        PROGRESSIVE[:-2]
        + PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2] * 1000
        + PROGRESSIVE[-2:]
    ),
    "a JPEG of four colours": lambda: file_of(Image.new("CMYK", (5, 7)), "JPEG"),
}


@pytest.mark.parametrize("case", BORNE)
def test_what_unfolds_into_much_is_answered_in_bounded_time_and_memory(chain, case):
    chain("Predict", request(BORNE[case]()))


@st.composite
def damaged(draw):
    """A good file with some of its bytes changed, cut out, or cut off."""
    content = bytearray(draw(st.sampled_from([GOOD_PNG, GOOD_JPEG, PROGRESSIVE])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        piece = draw(st.sampled_from(["change", "cut", "end"]))
        if piece == "change":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
        elif piece == "cut":
            del content[at : at + draw(st.integers(1, 20))]
        else:
            del content[at:]
    return bytes(content)


@cases(80)
@given(content=damaged())
def test_damaged_files_are_answered(chain, content):
    code, reply = chain("Predict", request(content))
    if code == OK:  # as far as such files can be read they may be
        assert list(reply.outputs) == ["ids"]
