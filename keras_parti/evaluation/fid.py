"""Distances of drawn pictures from real ones: sources, statistics, a table."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from tqdm import tqdm

from keras_parti.data.arrays import plain_texts
from keras_parti.evaluation import distances
from keras_parti.evaluation.parti_prompts import Prompt
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.evaluation.statistics import Statistics
from keras_parti.pixels import to_floats, to_uint8

if TYPE_CHECKING:
    from keras_parti.evaluation.inception import InceptionFeatures


BATCH = 32

# The names of the feature networks on the command line and in tables.
NETWORKS = ("inception", "keras-inception", "image", "pixels")


def feature_network(name, weights=None, dtype="float32"):
    """Makes a network of features.

    Args:
        name: one of `NETWORKS`. "inception" is that of the FID, from a weight file;
            "keras-inception" Keras' own, fetched; "image" the EfficientNet of the extra
            `evaluation`; "pixels" a thumbnail, which needs nothing.
        weights: path of the FID's weight file; for "inception" only.
        dtype: see `InceptionFeatures`.

    Returns:
        A callable of uint8 images to a dict of `features` and maybe `logits`, with
        `name`, `width` and `classes`.

    Raises:
        ValueError: an unknown name, or no weights where they are needed.
        OSError: weights that are not there.
    """
    if name not in NETWORKS:
        raise ValueError(
            f"`features` must be one of {', '.join(NETWORKS)}. Received: {name!r}"
        )
    if (weights is None) == (name == "inception"):
        raise ValueError(
            "The features inception need `weights`, the path of "
            "pt_inception-2015-12-05-6726825d.pth, and no others take any. "
            f"Received: weights={weights} for {name}"
        )
    if "inception" in name:
        from keras_parti.evaluation.inception import InceptionFeatures

        return InceptionFeatures(weights, dtype)
    from keras_parti.evaluation.features import ImageFeatures, PixelFeatures

    return _Plain(ImageFeatures(224) if name == "image" else PixelFeatures())


class _Plain:
    """Features without logits, as the others are called."""

    classes = 0

    def __init__(self, network):
        self._network, self.name = network, network.name
        self.width = network(np.zeros((1, 64, 64, 3), np.uint8)).shape[1]

    def __call__(self, images):
        return {"features": self._network(images)}


def picture_statistics(
    pictures: Iterable[tuple[str, np.ndarray]],
    network: "InceptionFeatures",
    total: int | None = None,
    label: str = "features",
) -> Statistics:
    """Computes the statistics of pictures as they come.

    Args:
        pictures: iterable of pairs: a name, and uint8 `(height, width, 3)`, all of one
            size. A name decides whether its picture is in the sample.
        network: as `feature_network` returns it.
        total: int. How many they are, where it is known, for the progress bar.
        label: str. What the bar says.

    Returns:
        `Statistics`.

    Raises:
        ValueError: pictures of several sizes.
    """
    statistics = Statistics(network.width, network.classes, network.name)
    names: list[str] = []
    images: list[np.ndarray] = []

    def finish():
        if not images:
            return
        if len({image.shape for image in images}) > 1:
            raise ValueError(
                "All pictures must have one size. "
                f"Received: {sorted({image.shape for image in images})}"
            )
        found = network(np.stack(images))
        statistics.add(names, found["features"], found.get("logits"))
        names.clear()
        images.clear()

    with tqdm(total=total, desc=label, unit="picture", disable=None) as bar:
        for name, image in pictures:
            names.append(name)
            images.append(image)
            if len(images) == BATCH:
                finish()
            bar.update()
        finish()
    return statistics


def named_pictures(source, image_size, *, augment=None, count=None, seed=0):
    """Opens pictures of a set or a folder.

    Args:
        source: as `keras_parti.data.load` takes it, a split behind a colon where it is
            not all: "emoji_captions/small:validation", "photos".
        image_size: int. Side in pixels; see `augment`.
        augment: None for the square in the middle; "transformer" for the crop near the
            centre of the paper's protocol.
        count: int or None. Pictures at most, a random choice by `seed`; where the set
            has fewer, it is gone through again, with other crops.
        seed: int.

    Returns:
        An iterator of pairs (name, uint8 picture), and the number of them.

    Raises:
        ValueError, FileNotFoundError: as `keras_parti.data.load`.
    """
    wanted, examples = _choose(
        source, count, seed, image_size=image_size, augment=augment
    )

    def generate():
        for name, _, example in examples:
            yield name, to_uint8(example["image"])

    return generate(), wanted


def reconstructions(tokenizer, pictures):
    """Encodes and decodes pictures as they come.

    Args:
        tokenizer: with `encode` and `decode`, such as a `ViTVQGAN`.
        pictures: iterable of pairs (name, uint8 picture), all of the tokenizer's size.

    Yields:
        Pairs of the same names and the tokenizer's pictures, uint8.
    """
    pictures = iter(pictures)
    while batch := list(itertools.islice(pictures, BATCH)):
        names, images = zip(*batch, strict=True)
        rebuilt = tokenizer.decode(tokenizer.encode(to_floats(np.stack(images))))
        rebuilt = np.clip(keras.ops.convert_to_numpy(rebuilt), 0.0, 1.0)
        yield from zip(names, to_uint8(rebuilt), strict=True)


def captions(source, count=None, seed=0):
    """Returns a caption for each picture that `named_pictures` chooses.

    Where a picture comes again, its next caption is taken.

    Args:
        source: as `named_pictures` takes it.
        count: as `named_pictures` takes it.
        seed: as `named_pictures` takes it.

    Returns:
        A list of `Prompt`, whose category is the picture's, where it has one.

    Raises:
        ValueError: a picture has no caption; or as `named_pictures`.
        FileNotFoundError: as `named_pictures`.
    """
    prompts = []
    for name, number, example in _choose(source, count, seed)[1]:
        texts = plain_texts(example)
        if not texts.get("captions"):
            raise ValueError(f"To draw pictures, all need a caption. None has: {name}")
        text = texts["captions"][number % len(texts["captions"])]
        prompts.append(Prompt(len(prompts), text, texts.get("category", ""), "", ""))
    return prompts


def _choose(source, count, seed, **options):
    """The number of examples of a source, and these: (name, which time, example)."""
    from keras_parti import data  # needs TensorFlow

    name, splits = split_source(source)
    known = data.splits(name)
    if missing := set(splits) - known.keys():
        raise ValueError(
            f"{name} has no split {', '.join(missing)}. Known: {', '.join(known)}"
        )
    splits = splits or [split for split in known if known[split]]
    total = sum(known[split] for split in splits)
    wanted = total if count is None else count

    def generate():
        left = wanted
        for split in splits:
            last = split == splits[-1]
            share = left if last else known[split] * wanted // total
            left -= share
            examples = data.load(
                name, split, shuffle_seed=seed, repeat=count is not None, **options
            )
            for i, example in enumerate(examples.take(share).as_numpy_iterator()):
                key = example.get("key", b"").decode(errors="replace")
                number = i // known[split]
                yield f"{name}:{split}/{key or i}#{number}", number, example

    return wanted, generate()


def split_source(source):
    """Divides "NAME:SPLIT" into the name and a list of splits, empty for all."""
    name, colon, split = str(source).rpartition(":")
    if not colon or Path(str(source)).exists():
        return str(source), []
    return name, [split]


def collect(sources, network, image_size, label="features", tokenizer=None, **options):
    """Joins the statistics of several sources.

    Args:
        sources: list of str or path: `.npz` files of statistics, or what
            `named_pictures` takes.
        network: as `feature_network` returns it, or None where all are files.
        image_size: int.
        label: str for the progress bar.
        tokenizer: None, or one whose reconstructions of the pictures are taken in their
            place, see `reconstructions`.
        **options: of `named_pictures`.

    Returns:
        `Statistics`.

    Raises:
        ValueError: statistics are to be reconstructed; or as `named_pictures`.
        FileNotFoundError: as `named_pictures`.
    """
    joined = None
    for source in sources:
        if str(source).endswith(".npz"):
            if tokenizer is not None:
                raise ValueError(
                    f"A tokenizer reconstructs pictures, not statistics: {source}"
                )
            part = Statistics.load(source)
        else:
            pictures, total = named_pictures(source, image_size, **options)
            if tokenizer is not None:
                pictures = reconstructions(tokenizer, pictures)
            part = picture_statistics(pictures, network, total, label)
        if joined is None:
            joined = part
        else:
            joined.merge(part)
    return joined


def compare(real, drawn, seed=0):
    """Computes all distances between two statistics.

    Args:
        real: `Statistics`.
        drawn: `Statistics` of the same features.
        seed: int. Of the subsets of the kernel distance.

    Returns:
        A dict of plain numbers: `frechet_distance`, `kernel_distance` and its
        deviation, `precision`, `recall`, `inception_score` and its deviation (where
        there are logits), `pictures`, `real_pictures`, `features`, and `fid`, whether
        the first is what papers call so.
    """
    kernel, kernel_deviation = distances.kernel_distance(real, drawn, seed)
    precision, recall = distances.precision_recall(real, drawn)
    results = {
        "features": drawn.network,
        "fid": drawn.network == "inception",
        "pictures": drawn.count,
        "real_pictures": real.count,
        "frechet_distance": distances.frechet_distance(real, drawn),
        "kernel_distance": kernel,
        "kernel_distance_deviation": kernel_deviation,
        "precision": precision,
        "recall": recall,
    }
    if drawn.classes and drawn.split_counts.all():
        score, deviation = distances.inception_score(drawn)
        results |= {"inception_score": score, "inception_score_deviation": deviation}
    return results


def write_comparison(results, out):
    """Writes `results.json` and `table.md`; returns the table.

    Args:
        results: dict, as `compare` returns it, and where the model has a CoCa
            `coca_score`, the mean over the drawn pictures and their captions.
        out: path of the folder.
    """
    first = "FID" if results["fid"] else f"Fréchet distance, {results['features']}"
    rows = [
        [first, f"{results['frechet_distance']:.3f}"],
        [
            "KID × 1000" if results["fid"] else "kernel distance × 1000",
            f"{1000 * results['kernel_distance']:.3f} ± "
            f"{1000 * results['kernel_distance_deviation']:.3f}",
        ],
        ["precision", f"{results['precision']:.3f}"],
        ["recall", f"{results['recall']:.3f}"],
    ]
    if "inception_score" in results:
        score, deviation = (
            results[f"inception_score{end}"] for end in ("", "_deviation")
        )
        rows.append(["Inception score", f"{score:.2f} ± {deviation:.2f}"])
    if "coca_score" in results:
        rows.append(["mean CoCa score", f"{results['coca_score']:.3f}"])
    table = "\n\n".join(
        [
            f"{results['pictures']:,} pictures, compared with "
            f"{results['real_pictures']:,} real ones. The first two are distances: "
            "smaller is better. Precision is the share of drawn pictures that lie "
            "among the real ones, recall that of real ones among the drawn.",
            markdown_table(["measure", "value"], rows),
        ]
    )
    if results["pictures"] < 10_000:
        table += (
            "\n\nThe Fréchet distance of few pictures is too large: compare it at one "
            "number of pictures only. Published ones take 30,000 and more."
        )
    write_report(out, results, table)
    return table
