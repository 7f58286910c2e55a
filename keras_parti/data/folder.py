"""A folder of pictures as a picture set: any files, captions beside them.

    photos/cat.jpg           a picture of split "train" or "validation"
    photos/cat.txt           its captions, if there are any, one a line
    photos/birds/owl.png     a picture of category "birds"

Where the folder holds folders `train` and `validation` (or `test`), these are the
splits. Otherwise about one picture in twenty is held out for `validation`, chosen by a
hash of its path without the suffix, so that it stays where it is when others come.
"""

import hashlib
import logging
import os
import threading
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_parti.data.decoding import SUFFIXES, PictureError, decode_picture

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
MAX_CAPTION_BYTES = 2**16  # of a caption file; more is no caption
MAX_NAMES = 20  # of skipped files in a summary


class PictureFolder:
    """The pictures below a folder.

    Pictures are read when they are needed, some at a time; those that cannot be read
    are left out and noted.

    Args:
        path: path of the folder. Hidden files, and other files than pictures, are
            passed over.

    Attributes:
        splits: dict of split name to list of paths, relative, sorted.
        skipped: dict of relative path to the reason why it could not be read, of all
            pictures tried so far.

    Raises:
        FileNotFoundError: there is no such folder, or no picture file in it.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"There is no folder {path}.")
        self.splits = _split(_find(self.path))
        self.skipped = {}
        self._lock = threading.Lock()
        if not self.splits:
            raise FileNotFoundError(
                f"{path} is no prepared picture set (it has no dataset_info.json) and "
                f"holds no pictures ({', '.join(sorted(SUFFIXES))})."
            )

    def read(self, paths, shuffle_seed=None, repeat=False, shortest=None, report=True):
        """Opens pictures of the folder.

        Args:
            paths: list of str, of `splits`.
            shuffle_seed: None keeps their order.
            repeat: whether to start over for ever.
            shortest: see `decode_picture`.
            report: whether to log what was skipped when all have been tried once.

        Returns:
            A `tf.data.Dataset` of dicts: `image` uint8 `(height, width, 3)`; `captions`
            strings `(n,)`; `name`, the file's without suffix; `category`, the folders
            it lies in below its split; `key`, its path.

        Raises:
            ValueError: not one of the pictures can be read.
        """
        self._check_any(paths)
        untried = set(paths) if report else set()

        def read(key):
            key = os.fsdecode(key)
            content = self._read(key, shortest)
            with self._lock:
                if key in untried:
                    untried.discard(key)
                    if not untried:
                        self._report(paths)
            return content

        def decode(key):
            image, captions = tf.numpy_function(
                read, [key], [tf.uint8, tf.string], stateful=False
            )
            image.set_shape((None, None, 3))
            captions.set_shape((None,))
            # `a/b/owl.png` of split `a`: category `b`, name `owl`.
            folders = tf.strings.split(key, "/")
            first = 1 if self._has_split_folders() else 0
            return {
                "image": image,
                "captions": captions,
                "name": tf.strings.regex_replace(folders[-1], r"\.[^.]*$", ""),
                "category": tf.strings.reduce_join(folders[first:-1], separator="/"),
                "key": key,
            }

        dataset = tf.data.Dataset.from_tensor_slices([os.fsencode(p) for p in paths])
        if shuffle_seed is not None:
            dataset = dataset.shuffle(len(paths), seed=shuffle_seed)
        if repeat:
            dataset = dataset.repeat()
        dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.filter(lambda example: tf.size(example["image"]) > 0)

    def _has_split_folders(self):
        return all(p.startswith(f"{s}/") for s, ps in self.splits.items() for p in ps)

    def _read(self, key, shortest):
        """Picture and captions; a picture without pixels if it cannot be read."""
        empty = np.zeros((0, 0, 3), np.uint8), np.zeros(0, np.bytes_)
        with self._lock:
            if key in self.skipped:
                return empty
        try:
            image = decode_picture(self.path / key, shortest)
        except PictureError as error:
            with self._lock:
                self.skipped[key] = str(error)
            return empty
        return image, np.array(read_captions(self.path / key), np.bytes_)

    def _check_any(self, paths):
        for path in paths:
            if self._read(path, None)[0].size:
                return
        raise ValueError(
            f"None of the {len(paths)} pictures of {self.path} can be read: "
            + self.summary(paths)
        )

    def _report(self, paths):
        if words := self.summary(paths):
            logger.warning("%s: skipped %s", self.path, words)

    def summary(self, paths):
        """Names those of some pictures that could not be read; "" if all could."""
        return summarize({p: self.skipped[p] for p in paths if p in self.skipped})


def summarize(skipped):
    """Says which pictures were skipped and why, in one line.

    Args:
        skipped: dict of name to reason.

    Returns:
        str, such as "2 pictures: a.png (the file is empty), b.jpg (truncated)"; "" for
        none.
    """
    if not skipped:
        return ""
    names = [f"{name} ({reason})" for name, reason in list(skipped.items())[:MAX_NAMES]]
    if len(skipped) > MAX_NAMES:
        names.append(f"and {len(skipped) - MAX_NAMES} more")
    plural = "s" if len(skipped) > 1 else ""
    return f"{len(skipped)} picture{plural}: " + ", ".join(names)


def read_captions(picture):
    """Returns the lines of the `.txt` file beside a picture, as UTF-8 bytes."""
    try:
        with open(Path(picture).with_suffix(".txt"), "rb") as file:
            text = file.read(MAX_CAPTION_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return []
    return [words.encode() for line in text.splitlines() if (words := line.strip())]


def _find(root):
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def _split(paths):
    tops = {path.split("/")[0] for path in paths if "/" in path}
    if {"train", "validation"} <= tops or {"train", "test"} <= tops:
        splits = {s: [p for p in paths if p.startswith(f"{s}/")] for s in SPLITS}
        return {name: members for name, members in splits.items() if members}
    hashes = {path: _hash(path) for path in paths}
    smallest = min(hashes.values(), default=0)
    # In a small folder none may fall below one in twenty: then the least is held out.
    held_out = {p for p in paths if hashes[p] < 0.05 or hashes[p] == smallest}
    splits = {
        "train": [p for p in paths if p not in held_out],
        "validation": [p for p in paths if p in held_out],
    }
    if not splits["train"]:
        return {"train": paths} if paths else {}
    return splits


def _hash(path):
    """A number of [0, 1), the same for `a.png` and `a.jpg`."""
    digest = hashlib.sha256(os.fsencode(os.path.splitext(path)[0])).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
