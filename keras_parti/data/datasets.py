"""Opens a picture set as a `tf.data.Dataset`, preparing it on first use."""

import difflib
import os
import re
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_parti.data import augmentation
from keras_parti.data.folder import PictureFolder
from keras_parti.data.ordering import in_order

FEATURES = ("image", "captions", "synonyms", "name", "style", "tone", "category", "key")
OWN_SETS = (
    "emoji_captions/small",
    "emoji_captions/full",
    "emoji_captions/large",
    "handwritten_digits",
    "photographs/crops",
    "photographs/whole",
)

# Of encoded pictures that are shuffled at a time: all of the sets above.
SHUFFLED_BYTES = 2**30


def load(
    name_or_dir: str | os.PathLike,
    split: str,
    batch_size: int | None = None,
    shuffle_seed: int | None = None,
    repeat: bool = False,
    image_size: int | None = None,
    augment: str | None = None,
    skipped: int = 0,
) -> tf.data.Dataset:
    """Opens a split of a picture set.

    Args:
        name_or_dir: a name such as "emoji_captions/small", prepared on first use under
            the data folder of TFDS (`TFDS_DATA_DIR`, else ~/tensorflow_datasets); the
            folder of a prepared set; or a folder of pictures, see `PictureFolder`,
            whose unreadable files are left out and named in a warning.
        split: a split, or a part of one, such as "train[:100]".
        batch_size: examples a batch; None for single examples.
        shuffle_seed: None keeps the stored order; the same number gives the same order,
            another one in every pass, whenever and wherever it is gone through.
        repeat: whether to start over for ever.
        image_size: side in pixels to resize pictures to, of those that are not square
            the square in their middle; None keeps theirs.
        augment: None, or a kind of random crop in place of that, "tokenizer",
            "recolored", "transformer" or "upsampler" (`keras_parti.data.augmentation`),
            seeded by `shuffle_seed`.
        skipped: first examples that are left out, where a run goes on. It takes less
            time than `skip` of the dataset: of prepared sets none of them is decoded,
            of a folder no more than are in it, and whole passes are not read.

    Returns:
        A dataset of dicts: `image` float32 `(height, width, 3)` in [0, 1], and those of
        `captions`, `synonyms` (strings, ragged in batches), `name`, `style`, `tone`,
        `category`, `key` (strings) that the set has. The `label` of sets of others
        becomes the name of its class, as `category`.

    Raises:
        ValueError: an unknown name or split, a set without pictures, a folder of which
            no picture can be read, or `augment` without `image_size`.
        FileNotFoundError: no such folder, or one without pictures.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> Path("pictures").mkdir()
        >>> for number in range(9):
        ...     Image.new("RGB", (9, 7)).save(f"pictures/black {number}.png")
        >>> batch = next(iter(load("pictures", "train", batch_size=2, image_size=5)))
        >>> tuple(batch["image"].shape)
        (2, 5, 5, 3)
    """
    if augment is not None and image_size is None:
        raise ValueError(f"`augment` needs `image_size`. Received: augment={augment!r}")
    dataset = _read(
        name_or_dir, split, shuffle_seed, repeat, image_size, augment, skipped=skipped
    )
    dataset = _sized(dataset, image_size, augment, shuffle_seed or 0, first=skipped)
    if batch_size is not None:
        dataset = dataset.ragged_batch(batch_size)
    return dataset.prefetch(tf.data.AUTOTUNE)


def splits(name_or_dir: str | os.PathLike) -> dict[str, int]:
    """Returns a dict of the splits of a picture set to their numbers of pictures.

    Those of a folder of pictures may hold some that cannot be read.

    Args:
        name_or_dir: as `load` takes it.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: no such folder, or one without pictures.
    """
    source = open_set(name_or_dir)
    if isinstance(source, PictureFolder):
        return {name: len(paths) for name, paths in source.splits.items()}
    return {name: split.num_examples for name, split in source.info.splits.items()}


class StoredSplit:
    """A split as a sequence whose parts can be read without those before them.

    `len(split)`, and `split[start:stop]`, a dataset of the single examples of `load`.

    Args:
        name_or_dir: as `load` takes it.
        split: name of a split.
        image_size: as for `load`.
        augment: as for `load`.
        passes: int. How often the sequence goes through the split, with other crops
            each time.

    Attributes:
        skipped: dict of name to reason, of the pictures that could not be read so far.
        identity: str. Name and version of a prepared set; of a folder, the number of
            its pictures in the split and a hash of their paths in it.
    """

    def __init__(
        self,
        name_or_dir: str | os.PathLike,
        split: str,
        image_size: int | None,
        augment: str | None = None,
        passes: int = 1,
    ) -> None:
        self._source = open_set(name_or_dir)
        self._arguments = (split, image_size, augment)
        self._count = splits(name_or_dir)[split]
        self._passes = passes
        self.skipped = getattr(self._source, "skipped", {})
        if isinstance(self._source, PictureFolder):
            self.identity = self._source.identity(split)
        else:
            self.identity = self._source.info.full_name

    def __len__(self):
        return self._count * self._passes

    def __getitem__(self, part):
        split, image_size, augment = self._arguments
        start, stop, _ = part.indices(len(self))
        if stop <= start:
            raise ValueError(f"A part must have examples. Received: {part}")
        found = None
        while start < stop:
            done, first = divmod(start, self._count)
            last = min(self._count, stop - done * self._count)
            dataset = _read(
                self._source,
                f"{split}[{first}:{last}]",
                image_size=image_size,
                augment=augment,
                report=False,
            )
            dataset = _sized(dataset, image_size, augment, seed=0, first=start)
            found = dataset if found is None else found.concatenate(dataset)
            start += last - first
        return found.prefetch(tf.data.AUTOTUNE)


def open_set(name_or_dir):
    """The TFDS builder of a name or folder, its data prepared, or a `PictureFolder`.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: no such folder, or one without pictures.
    """
    if isinstance(name_or_dir, PictureFolder | tfds.core.DatasetBuilder):
        return name_or_dir
    text = str(name_or_dir)
    if Path(text).expanduser().is_file():
        raise ValueError(
            "A picture set is a name or a folder, that of the list where its pictures "
            f"have one. Received: the file '{text}'"
        )
    if isinstance(name_or_dir, Path) or Path(text).is_dir() or text[:1] in "./~":
        path = Path(text).expanduser()
        if (path / "dataset_info.json").is_file():
            return tfds.builder_from_directory(path)
        return PictureFolder(path)
    try:
        builder = tfds.builder(text)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        folders = [path.name for path in Path().iterdir() if path.is_dir()]
        close = difflib.get_close_matches(text, [*folders, *OWN_SETS], 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"There is no picture set '{text}'.{hint} Known: {', '.join(OWN_SETS)}; "
            "any name of TensorFlow Datasets, and the folder of a prepared set or of "
            f"pictures, will do as well. ({str(error).splitlines()[0]})"
        ) from error
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return builder


def _read(
    name_or_dir,
    split,
    shuffle_seed=None,
    repeat=False,
    image_size=None,
    augment=None,
    report=True,
    skipped=0,
):
    """Single examples with float pictures of any size."""
    source = open_set(name_or_dir)
    known = source.splits if isinstance(source, PictureFolder) else source.info.splits
    if any(part not in known for part in re.findall(r"(?:^|\+)\s*(\w+)", split)):
        raise ValueError(
            f"`split` must be one of {list(known)} for {name_or_dir}. "
            f"Received: {split!r}"
        )
    if isinstance(source, PictureFolder):
        # Twice the side that it will be resized to or more: 12/8 of `image_size` where
        # crops are random.
        shortest = image_size and 2 * image_size * (2 if augment else 1)
        paths = _part(source.splits, split)
        whole = _part(source.splits, re.sub(r"\[[^]]*\]", "", split))
        dataset = source.read(
            paths, shuffle_seed, repeat, shortest, report, whole, skipped
        )
        return dataset.map(lambda e: {**e, "image": _floats(e["image"])})
    picture = dict(source.info.features.items()).get("image")
    if not isinstance(picture, tfds.features.Image):
        raise ValueError(
            f"{name_or_dir} has no feature `image`, only {list(source.info.features)}."
        )
    count = max(1, source.info.splits[split].num_examples)
    at_a_time = min(count, _examples_of(source.info, SHUFFLED_BYTES))
    dataset = source.as_dataset(
        split,
        decoders={"image": tfds.decode.SkipDecoding()},
        # Files are shuffled, too, where not all examples are shuffled at once: into one
        # order for all passes, since another one could not be found again.
        shuffle_files=shuffle_seed is not None and at_a_time < count,
        read_config=tfds.ReadConfig(
            shuffle_seed=shuffle_seed, shuffle_reshuffle_each_iteration=False
        ),
    )
    # Pictures are still PNG here, so that many of them take little memory.
    dataset = in_order(dataset, shuffle_seed, repeat, skipped, count, at_a_time)

    def decode(example):
        image = _floats(picture.decode_example(example["image"]))
        return {**_texts(example, source.info.features), "image": image}

    return dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _examples_of(info, size):
    """How many stored examples of a set take about so many bytes."""
    stored = sum(split.num_bytes for split in info.splits.values())
    count = sum(split.num_examples for split in info.splits.values())
    return max(1, size * count // max(1, stored))


def _part(members, split):
    """The members of a part of a split, in the notation of TFDS."""
    infos = {
        name: tfds.core.SplitInfo(
            name=name,
            shard_lengths=[len(paths)],
            num_bytes=0,
            filename_template=None,
        )
        for name, paths in members.items()
    }
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    return [path for p in parts for path in members[p.splitname][p.from_ : p.to]]


def _texts(example, features):
    """The text features of an example under our names."""
    texts = {key: example[key] for key in FEATURES[1:] if key in example}
    if isinstance(texts.get("captions"), dict):  # as in coco_captions
        texts["captions"] = texts["captions"]["text"]
    label = dict(features.items()).get("label")
    if "category" not in texts and isinstance(label, tfds.features.ClassLabel):
        texts["category"] = tf.constant(label.names)[example["label"]]
    return texts


def _floats(image):
    """RGB in [0, 1] from 8 bits, grey or with alpha, which is laid over white."""
    floats = tf.cast(image, tf.float32) / 255.0
    if image.shape[-1] == 4:
        floats = floats[..., :3] * floats[..., 3:] + 1.0 - floats[..., 3:]
    return tf.image.grayscale_to_rgb(floats) if image.shape[-1] == 1 else floats


def _sized(dataset, image_size, augment, seed, first=0):
    if augment is not None:
        return augmentation.augment(dataset, augment, image_size, seed, first)
    if image_size is None:
        return dataset

    def resize(example):
        image = example["image"]
        if image.shape[:2] != (image_size, image_size):
            if image.shape[0] is None or image.shape[0] != image.shape[1]:
                image = _middle(image)
            image = tf.image.resize(image, (image_size, image_size), antialias=True)
            image.set_shape((image_size, image_size, 3))
        return {**example, "image": image}

    return dataset.map(resize, num_parallel_calls=tf.data.AUTOTUNE)


def _middle(image):
    """The square in the middle of a picture."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    shorter = tf.minimum(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    return image[top : top + shorter, left : left + shorter]
