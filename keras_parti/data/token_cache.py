"""Image tokens and captions on disk, so that Parti and VIM train without a tokenizer.

A cache is a folder: shards such as `train-00000-of-00004.tfrecord`, or one `train.npz`
a split, and `manifest.json` with what made them. A shard gets its name when it is
whole, and then its line in the manifest; writing again after a kill goes on from there.
Several processes may write one cache: each takes the shards that no other works on.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from keras_parti.data import arrays
from keras_parti.files import written_whole
from keras_parti.typing import Tensor

if TYPE_CHECKING:
    import tensorflow as tf


FORMAT_VERSION = 1
FORMATS = ("tfrecord", "npz")
MANIFEST = "manifest.json"

# Pictures of a shard, by default: some minutes of a small tokenizer on two cores, and
# all that a kill can cost.
SHARD_SIZE = 4096


def write_token_cache(
    out_dir: str | os.PathLike,
    split: str,
    dataset: Collection[dict[str, Any]],
    encode: Callable[[Tensor], Tensor],
    fingerprint: str,
    num_codes: int,
    num_tokens: int,
    format: str = "tfrecord",
    shards: int | None = None,
    batch_size: int = 32,
    augment: str | None = None,
) -> int:
    """Encodes the pictures of a split and writes their ids and texts.

    Shards that are there already, whole and of the same tokenizer, are kept. Called by
    several processes at a time, on this machine or on others that share the folder,
    each encodes a part; all return when the split is complete.

    Args:
        out_dir: folder of the cache; other splits may already be in it.
        split: name of the split, such as "train".
        dataset: single examples in a fixed order, as `keras_parti.data.load` gives
            them: a `tf.data.Dataset` that knows its length, or a sequence. Of a
            sequence, such as `keras_parti.data.StoredSplit`, `dataset[start:stop]` may
            give fewer than asked for, where pictures could not be read; its
            `skipped`, a dict of name to reason, tells which. Its `identity`, a str,
            where it has one, tells of which pictures the tokens are.
        encode: callable from float32 pictures `(b, height, width, 3)` in [0, 1] to
            integer ids `(b, num_tokens)`.
        fingerprint: str that identifies the tokenizer, as `ViTVQGAN.fingerprint()`.
        num_codes: size of the codebook; every id must be below it.
        num_tokens: ids a picture.
        format: "tfrecord", or "npz" (one file, held in memory while it is made, read
            without TensorFlow).
        shards: number of TFRecord files; None for one in `SHARD_SIZE` pictures, at
            least 4.
        batch_size: pictures encoded at a time.
        augment: str or None, noted: how pictures were changed before.

    Returns:
        The number of examples encoded by this call.

    Raises:
        ValueError: bad arguments, ids of the wrong shape or range, no picture that
            could be read, or a folder that holds the cache of another tokenizer,
            format or picture set.
    """
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {FORMATS}. Received: {format!r}")
    if (shards is not None and shards < 1) or batch_size < 1:
        raise ValueError(
            "`shards` and `batch_size` must be positive. "
            f"Received: shards={shards}, batch_size={batch_size}"
        )
    try:
        total = len(dataset)
    except TypeError as error:
        raise ValueError(f"`dataset` must know its length: {error}") from error
    if total < 1:
        raise ValueError(f"`dataset` must have examples. Received: length {total}")
    if shards is None:
        shards = max(4, -(-total // SHARD_SIZE))
    shards = 1 if format == "npz" else min(shards, total)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    made_by = {
        "format_version": FORMAT_VERSION,
        "format": format,
        "tokenizer": str(fingerprint),
        "num_codes": int(num_codes),
        "num_tokens": int(num_tokens),
    }
    plan = {"examples": total, "num_shards": shards, "augment": augment}
    _plan_split(out_dir, split, made_by, plan, getattr(dataset, "identity", None))
    bounds = [total * k // shards for k in range(shards + 1)]
    names = [_shard_name(split, k, shards, format) for k in range(shards)]
    encoded, busy = 0, list[int]()
    # Shards that others work on are looked at again in the end: should their process
    # have been killed, they are made here.
    rounds = itertools.chain(((k, False) for k in range(shards)), _drain(busy))
    with (
        open(out_dir / f".{split}.lock", "ab") as locks,
        tqdm(total=total, desc=f"tokens of {split}", disable=None) as bar,
    ):
        for k, wait in rounds:
            with _lock(locks, k, wait) as mine:
                if not mine:
                    busy.append(k)
                    continue
                if not _is_whole(out_dir, split, names[k]):
                    known = set(getattr(dataset, "skipped", ()))
                    batches = _encode_all(
                        _part(dataset, bounds[k], bounds[k + 1]),
                        encode,
                        num_codes,
                        num_tokens,
                        batch_size,
                        bar,
                    )
                    with written_whole(out_dir / names[k]) as part:
                        count = _write_shard(part, batches, num_tokens, format)
                    line = {"examples": count, "sha256": _sha256(out_dir / names[k])}
                    skipped = getattr(dataset, "skipped", {})
                    if new := {k: v for k, v in skipped.items() if k not in known}:
                        line["skipped"] = new
                    _note_shard(out_dir, split, names[k], line)
                    encoded += count
                else:
                    bar.update(bounds[k + 1] - bounds[k])
    if not sum(examples_of(read_manifest(out_dir), split)):
        raise ValueError(f"None of the {total} pictures of {split} could be read.")
    return encoded


def read_token_cache(
    cache_dir: str | os.PathLike, split: str, tokenizer_fingerprint: str | None = None
) -> "tf.data.Dataset":
    """Opens a split as a `tf.data.Dataset`, in the order it was written.

    Args:
        cache_dir: folder of `write_token_cache`, of either format.
        split: name of the split.
        tokenizer_fingerprint: if given, the cache must be of this tokenizer.

    Returns:
        A dataset of single examples: `ids` int32 `(num_tokens,)`; `captions` and
        `synonyms`, strings `(n,)`; `name`, `style`, `tone`, `category`, `key`, strings.
        Texts that the set lacked are empty.

    Raises:
        FileNotFoundError: no cache, no such split, or a missing shard.
        ValueError: another tokenizer or format version, an unfinished split, or a
            truncated or altered shard.
    """
    import tensorflow as tf

    manifest, paths = _open(cache_dir, split, tokenizer_fingerprint)
    num_tokens = manifest["num_tokens"]
    total = sum(examples_of(manifest, split))
    if manifest["format"] == "npz":
        columns = arrays.unpack_texts(arrays.read_npz(paths[0]))
        tensors = {"ids": tf.constant(columns["ids"], tf.int32)}
        for key in arrays.LIST_FEATURES:
            lists = columns.get(key) or [[]] * total
            tensors[key] = tf.ragged.constant(lists, tf.string, ragged_rank=1)
        for key in arrays.TEXT_FEATURES:
            texts = columns.get(key, np.full(total, ""))
            tensors[key] = tf.constant(texts.tolist(), tf.string, (total,))
        return tf.data.Dataset.from_tensor_slices(tensors)
    features = {"ids": tf.io.FixedLenFeature([num_tokens], tf.int64)}
    for key in arrays.LIST_FEATURES:
        features[key] = tf.io.RaggedFeature(tf.string)
    for key in arrays.TEXT_FEATURES:
        features[key] = tf.io.FixedLenFeature([], tf.string, "")

    def parse(record):
        example = tf.io.parse_single_example(record, features)
        return {**example, "ids": tf.cast(example["ids"], tf.int32)}

    dataset = tf.data.TFRecordDataset([str(path) for path in paths])
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(total))
    return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def read_token_arrays(
    cache_dir: str | os.PathLike, split: str, tokenizer_fingerprint: str | None = None
) -> dict[str, Any]:
    """Reads a split of an `.npz` cache into memory, with NumPy alone.

    Args and errors are those of `read_token_cache`; a TFRecord cache is a ValueError.

    Returns:
        A dict: `ids` int32 `(n, num_tokens)`; lists of `n` lists of strings for
        `captions` and `synonyms`; string arrays for the rest.
    """
    manifest, paths = _open(cache_dir, split, tokenizer_fingerprint)
    if manifest["format"] != "npz":
        raise ValueError(
            f"{cache_dir} is a cache of format 'tfrecord', which needs TensorFlow: use "
            "`read_token_cache`, or write the cache with format='npz'."
        )
    return arrays.unpack_texts(arrays.read_npz(paths[0]))


def read_manifest(cache_dir: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a cache: `tokenizer`, `num_codes`, `num_tokens`, `splits`, ...

    Raises:
        FileNotFoundError: the folder holds no cache.
        ValueError: the manifest is damaged or of another format version.
    """
    path = Path(cache_dir) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{cache_dir} is no token cache: it has no {MANIFEST}, which `keras-parti "
            "encode` writes."
        )
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r}; this release reads "
            f"{FORMAT_VERSION}. Write the cache again."
        )
    return manifest


def has_split(cache_dir, split):
    """Whether a cache has a split: some sets hold out no pictures."""
    return split in read_manifest(cache_dir)["splits"]


def examples_of(manifest, split):
    """The numbers of examples in the shards of a split that are there."""
    return [line["examples"] for line in manifest["splits"][split]["shards"].values()]


def skipped_of(manifest, split):
    """A dict of name to reason, of the pictures of a split that were not readable."""
    lines = manifest["splits"][split]["shards"].values()
    return {
        name: why for line in lines for name, why in line.get("skipped", {}).items()
    }


def _open(cache_dir, split, tokenizer_fingerprint):
    manifest = read_manifest(cache_dir)
    if tokenizer_fingerprint not in (None, manifest["tokenizer"]):
        raise ValueError(
            f"{cache_dir} holds tokens of tokenizer {manifest['tokenizer']}, not of "
            f"{tokenizer_fingerprint}. Encode the pictures with the latter."
        )
    entry = manifest["splits"].get(split)
    if entry is None:
        raise FileNotFoundError(
            f"{cache_dir} has no split {split!r}, only {sorted(manifest['splits'])}."
        )
    if len(entry["shards"]) < entry["num_shards"]:
        raise ValueError(
            f"Split {split!r} of {cache_dir} is unfinished: {len(entry['shards'])} of "
            f"{entry['num_shards']} shards. `keras-parti encode`, given again, goes on."
        )
    paths = [Path(cache_dir) / name for name in sorted(entry["shards"])]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. Write the cache again.")
        if _sha256(path) != entry["shards"][path.name]["sha256"]:
            raise ValueError(
                f"{path} is truncated or altered. Write the cache again: whole shards "
                "are kept."
            )
    return manifest, paths


def _plan_split(out_dir, split, made_by, plan, pictures):
    """Begins the manifest, or checks it, and notes how a split is cut."""
    with _manifest_lock(out_dir):
        if (out_dir / MANIFEST).exists():
            manifest = read_manifest(out_dir)
            found = {key: manifest.get(key) for key in made_by}
            if found != made_by:
                raise ValueError(
                    f"{out_dir} holds another cache, of {found}, not of {made_by}. "
                    "Choose another folder or delete that one."
                )
        else:
            manifest = {**made_by, "splits": {}}
        entry = manifest["splits"].get(split, {})
        known = entry.get("pictures")  # None of a dataset that has no identity
        if entry.get("shards") and None not in (known, pictures) and known != pictures:
            raise ValueError(
                f"Split {split!r} of {out_dir} holds tokens of {known}, not of "
                f"{pictures}. Choose another folder or delete that one."
            )
        if {key: entry.get(key) for key in plan} != plan:
            # Cut differently: old shards would repeat or leave out examples.
            entry = {**plan, "shards": {}}
        manifest["splits"][split] = {**entry, "pictures": pictures or known}
        _write_manifest(out_dir, manifest)


def _note_shard(out_dir, split, name, line):
    with _manifest_lock(out_dir):
        manifest = read_manifest(out_dir)
        manifest["splits"][split]["shards"][name] = line
        _write_manifest(out_dir, manifest)


@contextlib.contextmanager
def _manifest_lock(out_dir):
    with open(out_dir / ".manifest.lock", "ab") as file, _lock(file, 0, wait=True):
        yield


@contextlib.contextmanager
def _lock(file, byte, wait):
    """Holds one byte of an open file against other processes; gives whether it does.

    The system frees the locks of a process that is killed.
    """
    import fcntl

    flags = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.lockf(file, flags, 1, byte)
    except OSError:
        if wait:
            raise
        yield False
        return
    try:
        yield True
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)


def _drain(busy):
    while busy:
        yield busy.pop(0), True


def _write_manifest(out_dir, manifest):
    with written_whole(out_dir / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=2) + "\n")


def _shard_name(split, index, shards, format):
    if format == "npz":
        return f"{split}.npz"
    return f"{split}-{index:05d}-of-{shards:05d}.tfrecord"


def _is_whole(out_dir, split, name):
    known = read_manifest(out_dir)["splits"][split]["shards"].get(name)
    path = out_dir / name
    return bool(known) and path.is_file() and _sha256(path) == known["sha256"]


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _part(dataset, start, stop):
    if hasattr(dataset, "skip"):  # a tf.data.Dataset cannot be sliced
        return dataset.skip(start).take(stop - start)
    return dataset[start:stop]


def _encode_all(examples, encode, num_codes, num_tokens, batch_size, bar):
    """Gives ids `(b, num_tokens)` and texts of the examples, a batch at a time."""
    examples = iter(examples)
    while batch := list(itertools.islice(examples, batch_size)):
        images = np.stack([np.asarray(each["image"], np.float32) for each in batch])
        ids = np.asarray(encode(images))
        if ids.shape != (len(batch), num_tokens) or ids.dtype.kind not in "iu":
            raise ValueError(
                f"`encode` must return integers of shape ({len(batch)}, {num_tokens})."
                f" Received: {ids.dtype} of shape {ids.shape}"
            )
        if ids.min() < 0 or ids.max() >= num_codes:
            raise ValueError(
                f"`encode` must return ids from 0 to {num_codes - 1}. Received: ids "
                f"from {ids.min()} to {ids.max()}"
            )
        yield ids.astype(np.int32), [arrays.plain_texts(each) for each in batch]
        bar.update(len(batch))


def _write_shard(path, batches, num_tokens, format):
    """Writes a shard, batch by batch where the format can; returns its examples."""
    if format == "npz":
        ids, texts = [np.zeros((0, num_tokens), np.int32)], []
        for own_ids, own_texts in batches:
            ids.append(own_ids)
            texts += own_texts
        ids = np.concatenate(ids)
        arrays.write_npz(path, {"ids": ids, **arrays.pack_texts(texts or [{}])})
        return len(ids)
    import tensorflow as tf

    def feature(text):
        values = text if isinstance(text, list) else [text]
        values = [value.encode() for value in values]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for ids, texts in batches:
            for row, own in zip(ids, texts, strict=True):
                features = {key: feature(text) for key, text in own.items()}
                features["ids"] = tf.train.Feature(
                    int64_list=tf.train.Int64List(value=row.tolist())
                )
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
                count += 1
    return count
