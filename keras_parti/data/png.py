"""Writes PNG files a band at a time, for pictures that had better not be in memory."""

import struct
import zlib

import numpy as np

from keras_parti.files import written_whole

UP = 2  # the filter of every row: what it differs by from the one above


def write_png(path, bands, height, width):
    """Writes an RGB picture that comes in bands, of which one is in memory at a time.

    A killed run leaves no half of it.

    Args:
        path: str or path.
        bands: iterable of uint8 `(rows, width, 3)`, from top to bottom, with `height`
            rows together.
        height: int. Pixels.
        width: int. Pixels.

    Raises:
        ValueError: a band is of another type or shape, or rows are missing or too many.

    References:
        - [PNG specification](https://www.w3.org/TR/png-3/), sections 5 and 9.2
    """
    with written_whole(path, shared=True) as part, open(part, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        # 8 bits, RGB, deflate, the five filters, not interlaced.
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        _write_chunk(file, b"IHDR", header)
        for content in _packed(bands, height, width):
            _write_chunk(file, b"IDAT", content)
        _write_chunk(file, b"IEND", b"")


def _packed(bands, height, width):
    """Yields the rows, filtered and deflated, a band at a time."""
    deflate = zlib.compressobj()
    above, rows = np.zeros((1, 3 * width), np.uint8), 0
    for band in bands:
        if band.dtype != np.uint8 or band.shape[1:] != (width, 3):
            raise ValueError(
                f"A band must be uint8 (rows, {width}, 3). "
                f"Received: {band.dtype} {band.shape}"
            )
        rows += len(band)
        values = band.reshape(len(band), -1)
        filtered = np.full((len(band), 1 + 3 * width), UP, np.uint8)
        # Modulo 256, as the filter wants it.
        np.subtract(values, np.concatenate([above, values[:-1]]), out=filtered[:, 1:])
        above = values[-1:]
        yield deflate.compress(filtered)
    if rows != height:
        raise ValueError(f"The bands must have {height} rows. Received: {rows}")
    yield deflate.flush()


def _write_chunk(file, kind, content):
    file.write(struct.pack(">I", len(content)) + kind + content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
