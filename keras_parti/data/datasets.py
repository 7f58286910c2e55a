"""Opens a captioned picture set as a `tf.data.Dataset`, preparing it on first use."""

import re
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_parti.data import emoji_captions

FEATURES = ("image", "captions", "synonyms", "name", "style", "tone", "category", "key")


def load(
    name_or_dir,
    split,
    batch_size=None,
    shuffle_seed=None,
    repeat=False,
    image_size=None,
):
    """Opens a split of a captioned picture set.

    Args:
        name_or_dir: a name such as "emoji_captions/small", prepared on first use under
            the data folder of TFDS (`TFDS_DATA_DIR`, else ~/tensorflow_datasets), or
            the folder of a prepared set.
        split: a split, or a part of one, such as "train[:100]".
        batch_size: examples a batch; None for single examples.
        shuffle_seed: None keeps the stored order; the same number gives the same order,
            another one in every pass.
        repeat: whether to start over for ever.
        image_size: side in pixels to resize pictures to; None keeps theirs.

    Returns:
        A dataset of dicts: `image` float32 `(height, width, 3)` in [0, 1], and those of
        `captions`, `synonyms` (strings, ragged in batches), `name`, `style`, `tone`,
        `category`, `key` (strings) that the set has.

    Raises:
        ValueError: an unknown name or split, or a set without pictures.
        FileNotFoundError: the folder holds no prepared set.
    """
    builder = open_builder(name_or_dir)
    splits = list(builder.info.splits)
    if re.split(r"[\[+]", split)[0] not in splits:
        raise ValueError(
            f"`split` must be one of {splits} for {name_or_dir}. Received: {split!r}"
        )
    picture = dict(builder.info.features.items()).get("image")
    if not isinstance(picture, tfds.features.Image):
        raise ValueError(
            f"{name_or_dir} has no feature `image`, only {list(builder.info.features)}."
        )
    dataset = builder.as_dataset(
        split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    if shuffle_seed is not None:
        # Pictures are still PNG here, so that shuffling whole sets takes little memory.
        dataset = dataset.shuffle(
            max(1, builder.info.splits[split].num_examples), seed=shuffle_seed
        )
    if repeat:
        dataset = dataset.repeat()

    def decode(example):
        image = tf.cast(picture.decode_example(example["image"]), tf.float32) / 255.0
        if image_size is not None and image.shape[:2] != (image_size, image_size):
            image = tf.image.resize(image, (image_size, image_size), antialias=True)
            image.set_shape((image_size, image_size, 3))
        kept = {key: example[key] for key in FEATURES if key in example}
        return {**kept, "image": image}

    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    if batch_size is not None:
        dataset = dataset.ragged_batch(batch_size)
    return dataset.prefetch(tf.data.AUTOTUNE)


def open_builder(name_or_dir):
    """The TFDS builder of a name or folder, its data prepared.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the folder holds no prepared set.
    """
    text = str(name_or_dir)
    if isinstance(name_or_dir, Path) or Path(text).is_dir() or text[:1] in "./~":
        return _open_folder(Path(text).expanduser())
    try:
        builder = tfds.builder(text)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        known = [
            f"{emoji_captions.EmojiCaptions.name}/{config}"
            for config in emoji_captions.EmojiCaptions.builder_configs
        ]
        raise ValueError(
            f"There is no picture set {text!r}. Known here: {known}; any name of "
            "TensorFlow Datasets or the folder of a prepared set will do as well. "
            f"({str(error).splitlines()[0]})"
        ) from error
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return builder


def _open_folder(path):
    if not (path / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"{path} is no prepared picture set: it must hold `dataset_info.json` and "
            "`features.json`, as TensorFlow Datasets writes them."
        )
    return tfds.builder_from_directory(path)
