"""Trains VIM on a token cache: image ids, and where wanted their classes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_parti import data
from keras_parti.data.arrays import TEXT_FEATURES
from keras_parti.data.ordering import counted, in_order, kept
from keras_parti.data.token_cache import has_split
from keras_parti.losses import TokenCrossEntropy
from keras_parti.models import VIM
from keras_parti.optimizers import Adafactor, WarmupExponential
from keras_parti.training import workdir as runs
from keras_parti.training.parti import check_fits, learning_from

CLASSES_FILE = "classes.json"

# The paper's run: 450,000 steps, the rate constant until 80,000 and 1e-5 at the end.
CONSTANT_SHARE = 80_000 / 450_000
FINAL_SHARE = 1e-5 / 4.5e-4


def compile_vim(
    model: VIM, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
) -> None:
    """Compiles a VIM with token cross-entropy and the paper's optimiser.

    That is Adam with β₁ 0.9 and β₂ 0.96 in the form of Adafactor, its momentum in 8
    bits. The paper names no weight decay and no clipping: there is none.

    Args:
        model: `VIM`.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 5.2
    """
    optimizer = Adafactor(
        learning_rate,
        beta_1=0.9,
        beta_2=0.96,
        weight_decay=None,
        global_clipnorm=None,
    )
    # As a plain graph, whose matrix products are faster than XLA's on processors.
    model.compile(optimizer, loss=TokenCrossEntropy(), jit_compile=False)


def read_classes(cache: str | os.PathLike, feature: str) -> list[str]:
    """Returns the values of a feature in a token cache, the names of its classes.

    Args:
        cache: str or path of a token cache with a split `train`.
        feature: str. One of `name`, `style`, `tone`, `category`.

    Returns:
        A sorted list of str; a class is known by its place in it.

    Raises:
        ValueError: an unknown feature, or one that not all pictures have.
    """
    known = [name for name in TEXT_FEATURES if name != "key"]
    if feature not in known:
        raise ValueError(
            f"`feature` must be one of {', '.join(known)}. Received: {feature!r}"
        )
    examples = data.read_token_cache(cache, "train").as_numpy_iterator()
    classes = sorted({example[feature].decode() for example in examples})
    if "" in classes:
        raise ValueError(f"Not all pictures of {cache} have a {feature}.")
    return classes


def batches(cache, split, batch_size, feature=None, classes=None, seed=None, skipped=0):
    """Returns batches of a token cache as VIM's `fit` takes them.

    Args:
        cache: str or path of a token cache.
        split: str. A split of it.
        batch_size: int.
        feature: str or None. What tells a picture's class; None gives no labels.
        classes: list of str, the names of the classes. A picture of another is left
            out.
        seed: int or None. With a seed, examples are shuffled for ever; without, each
            comes once.
        skipped: int. First batches that are left out.

    Returns:
        `tf.data.Dataset` of pairs: a dict of `image_ids`, int32 `(batch,
        num_tokens)`, and with a feature `labels`, int32 `(batch,)`; and the image ids
        again.
    """
    dataset = data.read_token_cache(cache, split)
    if feature is not None:
        labels = tf.range(len(classes), dtype=tf.int32)
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(classes), labels)
        table = tf.lookup.StaticHashTable(pairs, default_value=-1)

    def choose(example):
        inputs = {"image_ids": example["ids"]}
        if feature is not None:
            inputs["labels"] = table.lookup(example[feature])
        return inputs, example["ids"]

    dataset = dataset.map(choose)
    if feature is not None:
        dataset = counted(dataset.filter(lambda inputs, _: inputs["labels"] >= 0))
    dataset = in_order(kept(dataset), seed, seed is not None, skipped * batch_size)
    return dataset.batch(batch_size, drop_remainder=seed is not None).prefetch(2)


def train_vim(
    model: VIM,
    cache: str | os.PathLike,
    workdir: str | os.PathLike,
    feature: str | None = None,
    steps: int = 3_000,
    batch_size: int = 32,
    learning_rate: float = 4.5e-4,
    warmup_steps: int = 100,
    steps_per_epoch: int = 100,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> None:
    """Trains VIM on a token cache; resumes where `workdir` has a run.

    The paper trains 450,000 steps of 1024 pictures and warms the rate up to 4.5e-4
    over 5,000; at step 80,000 it begins to fall exponentially to 1e-5. Here the fall
    takes the same share of the steps. The paper augments pictures before the
    tokenizer, how is not published: write copies into the cache for that.

    Args:
        model: `VIM`, with as many classes as the feature has values, or none.
        cache: str or path of a token cache, with splits `train` and `validation`,
            which may be missing.
        workdir: str or path of the run; with classes it also receives `classes.json`,
            their names.
        feature: str or None. What tells a picture's class: `name`, `style`, `tone` or
            `category`.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch.
        learning_rate: float. Its peak.
        warmup_steps: int. Batches of linear warm-up.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the order of the examples.
        callbacks: more Keras callbacks.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: where model and cache do not fit together, or the folder holds
            another run.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 5.2
    """
    classes = read_classes(cache, feature) if feature else None
    num_classes = len(classes) if classes else None
    check_fits(model.config, cache, num_classes=num_classes)
    model.config = learning_from(model.config, cache)
    epochs = -(-steps // steps_per_epoch)
    total = epochs * steps_per_epoch
    warmup_steps = min(warmup_steps, total - 1)
    schedule = WarmupExponential(
        learning_rate,
        warmup_steps,
        max(warmup_steps, round(CONSTANT_SHARE * total)),
        total,
        FINAL_SHARE,
    )
    compile_vim(model, schedule)
    if classes:
        _write_classes(Path(workdir), classes)
    validation = None
    if has_split(cache, "validation"):
        validation = batches(cache, "validation", batch_size, feature, classes)
    runs.fit(
        model,
        lambda skipped: batches(
            cache, "train", batch_size, feature, classes, seed, skipped
        ),
        workdir,
        epochs,
        steps_per_epoch,
        callbacks,
        verbose,
        validation_data=validation,
    )


def load_classes(workdir):
    """Returns the names of a run's classes, or None where the folder does not say.

    Args:
        workdir: str or path of the run.
    """
    path = Path(workdir) / CLASSES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write_classes(workdir, classes):
    """Writes the names of a run's classes, or compares them with those it has."""
    known = load_classes(workdir)
    if known not in (None, classes):
        raise ValueError(
            f"{workdir} holds a run with other classes than {', '.join(classes)}. "
            "Choose another workdir."
        )
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(classes, ensure_ascii=False, indent=2)
    (workdir / CLASSES_FILE).write_text(text + "\n", encoding="utf-8")
