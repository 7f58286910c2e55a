"""What comes before training Parti: the vocabulary and the tokens of a picture set."""

import logging
import os

import numpy as np
from tqdm import tqdm

from keras_parti import data
from keras_parti.compiled import compiled
from keras_parti.data.arrays import plain_texts
from keras_parti.data.token_cache import examples_of, read_manifest, skipped_of
from keras_parti.models import ViTVQGAN
from keras_parti.text import Vocabulary, train_vocabulary

MAX_NAMES = 3  # of pictures without captions, in a warning

logger = logging.getLogger(__name__)


def train_set_vocabulary(
    name_or_dir: str | os.PathLike, path: str | os.PathLike, size: int
) -> int:
    """Trains a vocabulary on the captions and synonyms of a set's split `train`.

    Args:
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        path: path of the `.model` file to write.
        size: int. Largest number of ids, see `keras_parti.text.train_vocabulary`.

    Returns:
        int. The number of captions.

    Raises:
        ValueError: an unknown set, one without captions, or a `size` too small.
    """
    count, pictures, silent = 0, 0, []

    def captions():
        nonlocal count, pictures
        for example in tqdm(data.load(name_or_dir, "train"), "captions", disable=None):
            texts = plain_texts(example)
            found = texts.get("captions", []) + texts.get("synonyms", [])
            count, pictures = count + len(found), pictures + 1
            if not found:
                silent.append(str(texts.get("key") or texts.get("name") or pictures))
            yield from found
        if not count:
            raise ValueError(
                f"None of the {pictures} pictures of {name_or_dir} has a caption. Put "
                "them, one a line, into cat.txt beside cat.jpg, or all into a list: "
                "captions.csv or captions.jsonl."
            )

    train_vocabulary(captions(), path, size)
    if silent:
        names = ", ".join(silent[:MAX_NAMES]) + ", …" * (len(silent) > MAX_NAMES)
        logger.warning(
            "%s: %d of %d pictures have no caption: %s",
            name_or_dir,
            len(silent),
            pictures,
            names,
        )
    return count


def encode_set(
    tokenizer: ViTVQGAN,
    name_or_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    format: str = "tfrecord",
    batch_size: int = 32,
    shards: int | None = None,
    crops: int = 0,
) -> dict[str, tuple[int, int, dict[str, str]]]:
    """Writes the token cache of all splits of a picture set that hold pictures.

    Args:
        tokenizer: `ViTVQGAN`. Pictures are resized to its size.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        out_dir: path of the cache. Shards that are there, whole, are kept.
        format: str, "tfrecord" or "npz".
        batch_size: int. Pictures encoded at a time.
        shards: int or None. Files a split; see `write_token_cache`.
        crops: int. 0 encodes each picture once, as it is. A higher number
            encodes that many random crops of each picture of split `train`, by DALL-E's
            listing for the second stage (`keras_parti.data.augmentation`).

    Returns:
        A dict of split name to (pictures encoded, pictures that were there, dict of
        the names of skipped pictures to the reasons).

    Raises:
        ValueError: an unknown set, or a folder that holds another cache.
    """
    config, fingerprint = tokenizer.config, tokenizer.fingerprint()
    run = compiled(lambda images: {"ids": tokenizer.encode(images)}, tokenizer)
    counts = {}
    for name, total in data.splits(name_or_dir).items():
        if not total:
            continue
        cropped = {}
        if crops and name == "train":
            cropped = {"augment": "transformer", "passes": crops}
        encoded = data.write_token_cache(
            out_dir,
            name,
            data.StoredSplit(name_or_dir, name, config.image_size, **cropped),
            lambda images: run(images)["ids"],
            fingerprint,
            config.num_codes,
            config.num_tokens,
            format=format,
            shards=shards,
            batch_size=batch_size,
            augment=cropped.get("augment"),
        )
        manifest = read_manifest(out_dir)
        kept = sum(examples_of(manifest, name)) - encoded
        counts[name] = (encoded, kept, skipped_of(manifest, name))
    return counts


def warn_of_cut_captions(captions, vocabulary, where):
    """Warns where captions are longer than the rows of a vocabulary.

    The end of a caption often names what it is about: "a handwritten seven" and "a
    handwritten six" may be one text to a model whose rows are too short.

    Args:
        captions: list of str or bytes.
        vocabulary: `keras_parti.text.Vocabulary`.
        where: what the captions are of, for the warning.
    """
    report = vocabulary.encode_report(captions)
    lengths = report["num_tokens"]
    cut = int((lengths > vocabulary.length).sum())
    if not cut:
        return
    long_enough = Vocabulary(vocabulary.model_bytes, int(lengths.max()))
    before, after = (
        len(np.unique(ids, axis=0))
        for ids in (long_enough.encode(captions), report["ids"])
    )
    logger.warning(
        "%s: %d of %d captions are cut to %d ids; of %d different ones %d are left. "
        "A `text_length` of %d would hold them whole.",
        where,
        cut,
        len(captions),
        vocabulary.length,
        before,
        after,
        long_enough.length,
    )


def caption_fields(cache, config, vocabulary):
    """Returns the fields of a model's config that its data decide.

    Args:
        cache: path of a token cache.
        config: of a model of captions and ids, such as `PartiConfig`.
        vocabulary: `keras_parti.text.Vocabulary` of the captions.

    Returns:
        A dict of field to int, for `dataclasses.replace`.
    """
    manifest = read_manifest(cache)
    return {
        "num_codes": manifest["num_codes"],
        "num_tokens": manifest["num_tokens"],
        "text_vocab_size": max(config.text_vocab_size, vocabulary.size),
    }
