"""A folder of pictures as a picture set: any files, captions beside them.

    photos/cat.jpg           a picture of split "train" or "validation"
    photos/cat.txt           its captions, if there are any, one a line
    photos/birds/owl.png     a picture of category "birds"

Where the folder holds folders `train` and `validation` (or `val`, or `test`), these are
the splits. Otherwise about one picture in twenty is held out for `validation`, chosen
by a hash of its path without the suffix, so that it stays there when others come; and
one at least that can be read.

Captions may also stand in one file (`keras_parti.data.listings`: CSV, JSONL, MS-COCO,
Localized Narratives), and pictures in tar files (`keras_parti.data.tar_shards`). So the
public sets are read as they are unpacked:

    ImageNet    train/n01440764/n01440764_10026.JPEG   val/n01440764/...
    CelebA-HQ   0.jpg ... 29999.jpg
    FFHQ        00000/00000.png ... 69000/69999.png
    MS-COCO     train2014/ val2014/ annotations/captions_{train,val}2014.json
"""

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_parti.data.decoding import (
    OTHER_SUFFIXES,
    SUFFIXES,
    PictureError,
    decode_picture,
)
from keras_parti.data.listings import find_listing
from keras_parti.data.ordering import in_order
from keras_parti.data.tar_shards import find_pictures, read_texts

logger = logging.getLogger(__name__)

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
MAX_CAPTION_BYTES = 2**16  # of a caption file; more is no caption
UNREADABLE = (PictureError, EOFError, OSError)
MAX_NAMES = 20  # of skipped files in a summary

# What readers left out in this process, the reasons by folder and path, and what of it
# a warning has named.
_left_out: dict[Path, dict[str, str]] = {}
_named: set[tuple[Path, str]] = set()


class PictureFolder:
    """The pictures below a folder.

    Pictures are read when they are needed, some at a time; those that cannot be read
    are left out and noted.

    Args:
        path: path of the folder. Hidden files, and other files than pictures, lists
            and tar files, are passed over; those of pictures that cannot be read here,
            such as HEIC and raw files, are noted as skipped. Where there is a list, the
            pictures are those of the list.

    Attributes:
        splits: dict of split name to list of paths, relative, sorted.
        skipped: dict of relative path to the reason why it could not be read, of all
            pictures tried so far, and of those that are not read.

    Raises:
        FileNotFoundError: there is no such folder, or no picture file in it.
        ValueError: a list of captions is damaged.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"There is no folder {path}.")
        found, shards, others = _find(self.path)
        self._places, self._texts, self.skipped = find_pictures(self.path, shards)
        for name in others:
            self.skipped[name] = f"{Path(name).suffix} files are not read"
        _warn(self.path, self.skipped)
        self._listing = find_listing(self.path)
        self._lock = threading.Lock()
        if self._listing and self._listing.splits:
            self.splits = self._listing.splits
        else:
            names = self._listing.captions if self._listing else [*found, *self._places]
            self.splits = _split(sorted(names), self._can_be_read)
        if not self.splits:
            raise FileNotFoundError(
                f"{path} is no prepared picture set (it has no dataset_info.json) and "
                f"holds no pictures ({', '.join(sorted(SUFFIXES))})."
            )

    def read(
        self,
        paths: Sequence[str],
        shuffle_seed: int | None = None,
        repeat: bool = False,
        shortest: int | None = None,
        report: bool = True,
        whole: Sequence[str] | None = None,
        skipped: int = 0,
    ) -> tf.data.Dataset:
        """Opens pictures of the folder.

        Args:
            paths: list of str, of `splits`.
            shuffle_seed: None keeps their order.
            repeat: whether to start over for ever.
            shortest: see `decode_picture`.
            report: whether to log what was skipped when all have been tried once.
            whole: where they are a part, the pictures of the whole, one of which can be
                read if all is well.
            skipped: first examples that are left out. Which pictures are none has to
                be known for that, so as many are decoded, but none twice.

        Returns:
            A `tf.data.Dataset` of dicts: `image` uint8 `(height, width, 3)`; `captions`
            strings `(n,)`; `name`, the file's without suffix; `category`, the folders
            it lies in below its split; `key`, its path.

        Raises:
            ValueError: not one of the pictures can be read, now or when they are read.
        """
        whole = paths if whole is None else whole
        self._check_any(whole)
        untried = set(paths) if report else set()

        def read(key):
            key = os.fsdecode(key)
            content = self._read(key, shortest)
            if report and not content[0].size:
                left_out = _left_out.setdefault(self.path, {})
                left_out[key] = self.skipped[key]
            # All may have vanished since; to look for one for ever would be to hang.
            if not content[0].size and self._lost(paths):
                self._check_any(whole)
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
            folders, name = folders[first:-1], folders[-1]
            # A tar file stands where a folder would.
            tars = tf.strings.regex_full_match(folders, r".*\.tar")
            folders = tf.boolean_mask(folders, ~tars)
            return {
                "image": image,
                "captions": captions,
                "name": tf.strings.regex_replace(name, r"\.[^.]*$", ""),
                "category": tf.strings.reduce_join(folders, separator="/"),
                "key": key,
            }

        broken, passes = [], 0
        if skipped >= len(paths):
            broken = self._broken(paths, shortest)
            if report:
                self._report(paths)
            good = max(1, len(paths) - len(broken))
            passes, skipped = divmod(skipped, good)
        dataset = in_order(
            tf.data.Dataset.from_tensor_slices([os.fsencode(p) for p in paths]),
            shuffle_seed,
            repeat,
            passes * len(paths),
            at_a_time=len(paths),
        )
        if broken:
            names = tf.constant([os.fsencode(path) for path in broken])
            dataset = dataset.filter(lambda key: tf.reduce_all(key != names))
        if passes:  # so that all which are left can be read
            dataset, skipped = dataset.skip(skipped), 0
        dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.filter(lambda example: tf.size(example["image"]) > 0)
        return dataset.skip(skipped)

    def _broken(self, paths, shortest):
        """Tries all pictures; returns the paths of those that cannot be read."""

        def is_broken(path):
            return not self._read(path, shortest)[0].size

        # Threads, since Pillow decodes without Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(is_broken, paths)
            found = tqdm(found, "pictures tried", len(paths), disable=None)
            return [path for path, broken in zip(paths, found, strict=True) if broken]

    def _has_split_folders(self):
        if self._listing and self._listing.splits:
            return True
        return all(
            path.split("/")[0] in SPLITS[split]
            for split, paths in self.splits.items()
            for path in paths
        )

    def _read(self, key, shortest):
        """Picture and captions; a picture without pixels if it cannot be read."""
        empty = np.zeros((0, 0, 3), np.uint8), np.zeros(0, np.bytes_)
        with self._lock:
            if key in self.skipped:
                return empty
        try:
            image = self._decode(key, shortest)
        except UNREADABLE as error:
            with self._lock:
                self.skipped[key] = str(error)
            return empty
        return image, np.array(self._captions(key), np.bytes_)

    def _decode(self, key, shortest=None):
        place = self._places.get(key)
        source = self.path / key if place is None else place.read()
        return decode_picture(source, shortest)

    def _can_be_read(self, key):
        """Tries it without a note."""
        try:
            return bool(self._decode(key).size)
        except UNREADABLE:
            return False

    def _captions(self, key):
        if self._listing:
            return [text.encode() for text in self._listing.captions.get(key, [])]
        if key in self._places:
            return read_texts(*self._texts[key]) if key in self._texts else []
        return read_captions(self.path / key)

    def _check_any(self, paths):
        if any(self._read(path, None)[0].size for path in paths):
            return
        raise ValueError(
            f"None of the pictures of {self.path} can be read: {self.summary(paths)}"
        )

    def _lost(self, paths):
        """Whether all of them are known to be unreadable."""
        with self._lock:
            return len(self.skipped) >= len(paths) and self.skipped.keys() >= set(paths)

    def identity(self, split: str) -> str:
        """Tells the pictures of a split from others by their number and paths."""
        paths = self.splits[split]
        digest = hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest()
        return f"a folder of {len(paths)} pictures, {digest[:16]}"

    def _report(self, paths):
        _warn(self.path, {p: self.skipped[p] for p in paths if p in self.skipped})

    def summary(self, paths: Sequence[str]) -> str:
        """Names those of some pictures that could not be read; "" if all could."""
        return summarize({p: self.skipped[p] for p in paths if p in self.skipped})


def report_skipped() -> None:
    """Names in a warning what was left out of folders, and has not been named yet.

    A reader does so itself when it has tried all pictures of a split; this is for the
    end of a training that has not seen all of them.
    """
    for path, skipped in list(_left_out.items()):
        _warn(path, dict(skipped))


def _warn(path, skipped):
    """Names each file once, however often a folder is opened."""
    new = {name: why for name, why in skipped.items() if (path, name) not in _named}
    _named.update((path, name) for name in new)
    if new:
        logger.warning("%s: skipped %s", path, summarize(new))


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
    """Paths of picture files, of tar files, and of pictures that are not read."""
    found, shards, others = [], [], []
    kinds = {".tar": shards}
    kinds |= dict.fromkeys(SUFFIXES, found) | dict.fromkeys(OTHER_SUFFIXES, others)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            kind = kinds.get(Path(name).suffix.lower())
            if kind is not None and not name.startswith("."):
                path = os.path.relpath(os.path.join(folder, name), root)
                kind.append(path.replace(os.sep, "/"))
    return sorted(found), sorted(shards), sorted(others)


def _split(paths, can_be_read):
    tops = {path.split("/")[0] for path in paths if "/" in path}
    splits = {
        split: [path for path in paths if path.split("/")[0] in names]
        for split, names in SPLITS.items()
        if tops & set(names)
    }
    if "train" in splits and len(splits) > 1:
        return splits
    hashes = {path: _hash(path) for path in paths}
    # In a small folder none may fall below one in twenty, or none that can be read:
    # then the least of those that can is held out, too.
    in_order = sorted(paths, key=hashes.get)
    readable = next(filter(can_be_read, in_order), None)
    bound = max(0.05, hashes.get(readable, 0))
    held_out = {p for p in paths if hashes[p] <= bound}
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
