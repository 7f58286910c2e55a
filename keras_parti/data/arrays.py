"""Picture sets as one `.npz` file, for machines without TensorFlow."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_parti.files import written_whole
from keras_parti.pixels import to_uint8

# A list of captions is stored as one string, a caption a line: arrays of unequal lists
# would need pickling.
LIST_FEATURES = ("captions", "synonyms")
TEXT_FEATURES = ("name", "style", "tone", "category", "key")

# Bytes of this machine: what unfolds into more cannot be read, and zeros unfold into a
# thousand times their size on disk.
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def to_npz(dataset: Iterable[dict[str, Any]], path: str | os.PathLike) -> None:
    """Writes the single (not batched) examples of `keras_parti.data.load` to a file.

    Args:
        dataset: iterable of dicts with `image`, float32 `(height, width, 3)` in [0, 1],
            and some of `captions`, `synonyms`, `name`, `style`, `tone`, `category`,
            `key`.
        path: the `.npz` file to write.

    Raises:
        ValueError: no examples, or batched ones.
    """
    images, texts = [], []
    for example in tqdm(dataset, desc="pictures", disable=None):
        image = np.asarray(example["image"], np.float32)
        if image.ndim != 3:
            raise ValueError(
                "`dataset` must give single examples, images of shape "
                f"(height, width, 3). Received: {image.shape}"
            )
        images.append(to_uint8(image))
        texts.append(plain_texts(example))
    if not images:
        raise ValueError("`dataset` has no examples.")
    write_npz(path, {"image": np.stack(images), **pack_texts(texts)})


def load_npz(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file of `to_npz`, with NumPy alone.

    Returns:
        A dict: `image` uint8 `(n, height, width, 3)`, 0 to 255 to save memory; lists of
        `n` lists of strings for `captions` and `synonyms`; string arrays for the rest.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no such archive.
    """
    arrays = read_npz(path)
    if "image" not in arrays:
        raise ValueError(f"{path} holds no `image`, only {sorted(arrays)}.")
    return unpack_texts(arrays)


def plain_texts(example):
    """The text features of one example as Python strings and lists of strings."""
    texts = {
        k: [_text(t) for t in _values(example[k])]
        for k in LIST_FEATURES
        if k in example
    }
    return texts | {
        k: _text(_values(example[k])) for k in TEXT_FEATURES if k in example
    }


def _values(value):
    return value.numpy() if hasattr(value, "numpy") else value


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def pack_texts(texts):
    """Turns a list of dicts of `plain_texts` into a dict of string arrays."""
    packed = {}
    for key in texts[0]:
        column = [text[key] for text in texts]
        if key in LIST_FEATURES:
            column = [
                "\n".join(" ".join(caption.split()) for caption in captions)
                for captions in column
            ]
        packed[key] = np.array(column, np.str_)
    return packed


def unpack_texts(arrays):
    """Splits the joined lists again; the opposite of `pack_texts`."""
    lists = {
        key: [text.split("\n") if text else [] for text in arrays[key].tolist()]
        for key in LIST_FEATURES
        if key in arrays
    }
    return arrays | lists


def write_npz(path, arrays):
    """Writes arrays to a file that is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path, shared=True) as part:
        np.savez_compressed(part, **arrays)


def read_npz(path):
    """Reads all arrays of a file; never unpickles.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or would unfold into more than the memory.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            size = sum(part.file_size for part in file.zip.infolist())
            if size > MEMORY:
                raise ValueError(f"its arrays take {size:,} bytes, of {MEMORY:,}")
            return {key: file[key] for key in file.files}
    except Exception as error:
        # zipfile, zlib and NumPy each have their own exceptions for damage.
        raise ValueError(f"{path} is damaged or no .npz file: {error}") from error
