"""Rows of prompts and pictures, as the columns that requests carry."""

from collections.abc import Collection

import numpy as np

# Samples a request may carry, so that a request's time and memory stay bounded.
ROWS_PER_REQUEST = 16

# Bytes of pictures a request carries together: half of what `Server` takes.
BYTES_PER_REQUEST = 32 << 20


def utf8(prompts):
    """Turns a list of prompts into one of bytes.

    Raises:
        TypeError: It is one string or no list, or holds something else than strings.
        ValueError: It is empty.
    """
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Collection):
        raise TypeError(f"prompts must be a list of strings. Received: {prompts!r}")
    for prompt in prompts:
        if not isinstance(prompt, str | bytes):
            raise TypeError(f"prompts must be strings. Received: {prompt!r}")
    if not len(prompts):
        raise ValueError("prompts must hold at least one. Received: []")
    # A shell's odd bytes become lone surrogates; the vocabulary reads them as it can.
    return [
        p.encode("utf-8", "surrogatepass") if isinstance(p, str) else p for p in prompts
    ]


def label_column(labels):
    """Turns a list of labels into int32 `(rows,)`.

    Raises:
        ValueError: It is empty, or holds something else than integers of 32 bits.
    """
    column = np.asarray(labels)
    fits = column.ndim == 1 and column.dtype.kind in "iu" and column.size
    if not fits or not -(2**31) <= column.min() <= column.max() < 2**31:
        raise ValueError(f"labels must be a list of integers. Received: {labels!r}")
    return column.astype(np.int32)


def draw_columns(values, seeds, options, name="prompt"):
    """Full columns of every input of `generate`, or with labels of `generate_class`.

    A server that joins requests into one batch cannot join columns of unequal length.

    Raises:
        ValueError: `top_k` fits no column of int32.
    """
    rows = len(values)
    if not -(2**31) <= options["top_k"] < 2**31:
        raise ValueError(
            f"top_k must be an integer of 32 bits. Received: {options['top_k']}"
        )
    return {
        name: column(values),
        "seed": np.array(seeds, np.int64),
        "guidance_scale": np.full(rows, options["guidance_scale"], np.float32),
        "temperature": np.full(rows, options["temperature"], np.float32),
        "top_k": np.full(rows, options["top_k"], np.int32),
        "top_p": np.full(rows, options["top_p"], np.float32),
    }


def column(values):
    """One value of each row as an array; bytes as objects, as TensorFlow wants them."""
    return np.array(values, object if isinstance(values[0], bytes) else None)


def chunks(rows):
    """Parts of the rows: of so many, and of pictures of so many bytes."""
    chunk, size = [], 0
    for row in rows:
        length = len(row.get("image_bytes", b""))
        full = len(chunk) == ROWS_PER_REQUEST or size + length > BYTES_PER_REQUEST
        if chunk and full:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += length
    yield chunk
