"""Trains Parti on token caches: image ids and captions."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_parti import data
from keras_parti.data.arrays import plain_texts
from keras_parti.data.captions import draw_text
from keras_parti.data.ordering import in_order, kept, mixed
from keras_parti.data.token_cache import has_split, read_manifest
from keras_parti.losses import TokenCrossEntropy
from keras_parti.models import Parti
from keras_parti.models.operations import parti_step_flops
from keras_parti.optimizers import (
    Adafactor,
    AdamW,
    WarmupExponential,
    warmup_cosine,
)
from keras_parti.text import Vocabulary
from keras_parti.training import workdir as runs
from keras_parti.training.figures import RunFigures
from keras_parti.training.preparation import warn_of_cut_captions

OPTIMIZERS = {"adamw": AdamW, "adafactor": Adafactor}
SCHEDULES = ("cosine", "exponential")

# Pictures of a cache whose captions are looked at for those too long: of a large cache
# enough to know the share, in seconds.
LOOKED_AT = 10_000


def compile_parti(
    model: Parti,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    **options: Any,
) -> None:
    """Compiles a Parti with token cross-entropy and token accuracy.

    Args:
        model: `Parti`.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        **options: more arguments of `optimizer_of`.

    Raises:
        ValueError: as `optimizer_of`.
    """
    # Measured on two cores at width 192: a step of 32 pictures takes 1.2 s as a plain
    # graph and 2.7 s under XLA, whose matrix products are slower.
    model.compile(
        optimizer_of(model, learning_rate, **options),
        loss=TokenCrossEntropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy("token_accuracy")],
        jit_compile=False,
    )


def optimizer_of(
    model, learning_rate, optimizer="adamw", average=None, accumulated_batches=1
):
    """Returns an optimiser with the paper's settings.

    β₁, β₂, the decoupled weight decay and the clipping are the paper's. Its Adafactor
    is there for models whose state is too large otherwise: 8 bytes a parameter with
    AdamW, 1 with Adafactor; small models have the memory.

    Args:
        model: the model to train. Its matrices decay, tables of ids and of positions
            among them; vectors and scalars do not. Which do is not published.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`, which
            counts batches, not updates.
        optimizer: str, one of `OPTIMIZERS`.
        average: float in `(0, 1)` or None. Share that a moving average of the weights
            keeps of itself at each batch; None keeps none, as the paper.
        accumulated_batches: int. Batches whose mean gradient makes one update.

    Returns:
        `keras.optimizers.Optimizer`.

    Raises:
        ValueError: another optimiser, or batches accumulated under several replicas,
            which Keras' TensorFlow optimisers cannot do.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 3
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if accumulated_batches > 1 and replicas > 1:
        raise ValueError(
            "`accumulated_batches` must be 1 under several replicas. Received: "
            f"accumulated_batches={accumulated_batches} with {replicas} replicas"
        )
    if optimizer not in OPTIMIZERS:
        raise ValueError(
            f"`optimizer` must be one of {tuple(OPTIMIZERS)}. Received: {optimizer!r}"
        )
    optimizer = OPTIMIZERS[optimizer](
        learning_rate,
        beta_1=0.9,
        beta_2=0.96,
        weight_decay=4.5e-2,
        global_clipnorm=4.0,
        use_ema=average is not None,
        ema_momentum=average or 0.0,
        # Keras takes 1 for an error.
        gradient_accumulation_steps=None
        if accumulated_batches == 1
        else accumulated_batches,
    )
    # Decay would only pull norm scales and biases away from where they start.
    optimizer.exclude_from_weight_decay(
        [v for v in model.trainable_variables if len(v.shape) < 2]
    )
    return optimizer


def batches(
    caches: str | os.PathLike | dict[str, float],
    split: str,
    vocabulary: Vocabulary,
    batch_size: int,
    seed: int | None = None,
    canonical_rate: float = 0.5,
    label_rate: float = 0.0,
    skipped: int = 0,
) -> tf.data.Dataset:
    """Returns batches of token caches as Parti's `fit` takes them.

    Args:
        caches: str or path of a token cache, or a dict of such to weights: how often
            an example is drawn from each.
        split: str. A split of them.
        vocabulary: `keras_parti.text.Vocabulary`.
        batch_size: int.
        seed: int or None. With a seed, examples are shuffled for ever and a text is
            drawn each time; without, each comes once with its first caption, the
            caches one after the other.
        canonical_rate: float in `[0, 1]`. How often the first caption is drawn; else
            any caption or synonym of the picture is.
        label_rate: float in `[0, 1]`. How often a picture's name is its text instead,
            as Parti's JFT pictures have a label or a caption at random (section 4.1).
            A picture without captions always has its name.
        skipped: int. First batches that are left out.

    Returns:
        `tf.data.Dataset` of pairs: a dict of `text_ids`, int32 `(batch, text_length)`,
        and `image_ids`, int32 `(batch, num_tokens)`; and the image ids again.

    Raises:
        ValueError: the caches are of different tokenizers, or a weight is not positive.
    """
    if not isinstance(caches, dict):
        caches = {str(caches): 1.0}
    _check_mix(caches)
    datasets = [data.read_token_cache(cache, split) for cache in caches]
    first = skipped * batch_size
    if seed is None:
        dataset = datasets[0]
        for other in datasets[1:]:
            dataset = dataset.concatenate(other)
        dataset = dataset.skip(first)
    elif len(datasets) == 1:
        dataset = in_order(kept(datasets[0]), seed, skipped=first)
    else:
        datasets = [in_order(kept(dataset), seed) for dataset in datasets]
        dataset = mixed(datasets, list(caches.values()), seed).skip(first)

    def choose(index, example):
        draw = None if seed is None else (seed, index)
        return example["ids"], draw_text(example, draw, canonical_rate, label_rate)

    def encode(ids, texts):
        text_ids = vocabulary.encode_tensor(texts)["ids"]
        return {"text_ids": text_ids, "image_ids": ids}, ids

    return (
        dataset.enumerate(first)
        .map(choose, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=seed is not None)
        .map(encode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
    )


def train_parti(
    model: Parti,
    caches: str | os.PathLike | dict[str, float],
    vocabulary: Vocabulary,
    workdir: str | os.PathLike,
    steps: int = 3_000,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    warmup_steps: int = 200,
    schedule: str = "cosine",
    optimizer: str = "adamw",
    average: float | None = None,
    accumulated_batches: int = 1,
    label_rate: float = 0.0,
    steps_per_epoch: int = 100,
    seed: int = 0,
    peak_flops: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> None:
    """Trains Parti on token caches; resumes where `workdir` has a run.

    The paper trains 450,000 steps of 8192 pictures with Adafactor: 5,000 steps up to a
    rate of 4.5e-5, 80,000 at it, then an exponential decay. The defaults here are for
    small models and small sets.

    Args:
        model: `Parti`.
        caches: str or path of a token cache, with splits `train` and `validation`, or
            a dict of such to weights. The validation split may be missing.
        vocabulary: `keras_parti.text.Vocabulary`.
        workdir: str or path of the run.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch.
        learning_rate: float. Its peak.
        warmup_steps: int. Batches of linear warm-up.
        schedule: str. After the warm-up, "cosine" falls to a hundredth along a cosine;
            "exponential" stays for 85/450 of the run and falls to a fortieth, which
            is the paper's where `steps` is 450,000.
        optimizer: str, "adamw" or "adafactor", see `optimizer_of`.
        average: float or None, see `optimizer_of`.
        accumulated_batches: int, see `optimizer_of`. It divides `steps_per_epoch`.
        label_rate: float, see `batches`.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the order of the examples and of the captions drawn.
        peak_flops: float or None. What `mfu` is measured by, see `RunFigures`.
        callbacks: more Keras callbacks.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: as `optimizer_of`, `batches`, `check_fits` and `learning_from`, or
            the folder holds another run.
    """
    if steps_per_epoch % accumulated_batches:
        raise ValueError(
            f"`accumulated_batches` must divide `steps_per_epoch`, {steps_per_epoch}. "
            f"Received: accumulated_batches={accumulated_batches}"
        )
    check_fits(model.config, caches, vocabulary)
    words = vocabulary.fingerprint
    model.config = learning_from(model.config, caches, vocabulary=words)
    epochs = -(-steps // steps_per_epoch)
    total = epochs * steps_per_epoch
    compile_parti(
        model,
        rate_of(schedule, learning_rate, warmup_steps, total),
        optimizer=optimizer,
        average=average,
        accumulated_batches=accumulated_batches,
    )
    flops = sum(parti_step_flops(model.config, batch_size).values())
    figures = RunFigures(batch_size * model.config.num_tokens, flops, peak_flops)
    runs.fit(
        model,
        lambda skipped: batches(
            caches,
            "train",
            vocabulary,
            batch_size,
            seed,
            label_rate=label_rate,
            skipped=skipped,
        ),
        workdir,
        epochs,
        steps_per_epoch,
        [figures, *callbacks],
        verbose,
        validation_data=validation_batches(caches, vocabulary, batch_size),
    )


def check_fits(config, caches, vocabulary=None, **wanted):
    """Raises `ValueError` where a model's sizes are not those of what it is to learn.

    Warns where captions are longer than the model's rows of text ids.

    Args:
        config: `PartiConfig`, `VIMConfig` or `TextEncoderConfig`.
        caches: as `train_parti` takes them.
        vocabulary: `keras_parti.text.Vocabulary`, or None for models of no texts.
        **wanted: what further fields must be, such as `num_classes`.
    """
    caches = caches if isinstance(caches, dict) else [caches]
    for cache in caches:
        manifest = read_manifest(cache)
        sizes = {name: manifest[name] for name in ("num_codes", "num_tokens")}
        _check_fields(config, sizes | wanted, cache)
    if vocabulary is None:
        return
    _check_fields(config, {"text_length": vocabulary.length}, "the vocabulary")
    if config.text_vocab_size < vocabulary.size:
        raise ValueError(
            f"`text_vocab_size` of the model must be at least {vocabulary.size}, the "
            "size of the vocabulary. "
            f"Received: text_vocab_size={config.text_vocab_size}"
        )
    for cache in caches:
        examples = data.read_token_cache(cache, "train").take(LOOKED_AT)
        texts = [plain_texts(example).get("captions", []) for example in examples]
        captions = [caption for some in texts for caption in some]
        warn_of_cut_captions(captions, vocabulary, cache)


def learning_from(config, caches, **known):
    """Returns a config that notes whose ids are learned, the tokenizer of the caches.

    Args:
        config: `PartiConfig`, `VIMConfig` or `TextEncoderConfig`.
        caches: as `train_parti` takes them.
        **known: fingerprints of other fields, such as `vocabulary`.

    Raises:
        ValueError: the caches are of several tokenizers, or the config of another.
    """
    caches = caches if isinstance(caches, dict) else {caches: 1.0}
    _check_mix(caches)
    known["tokenizer"] = read_manifest(next(iter(caches)))["tokenizer"]
    for name, found in known.items():
        noted = getattr(config, name)
        if noted not in (None, found):
            raise ValueError(
                f"The model has learned ids of {name} {noted}. Received: those of "
                f"{found}"
            )
    return dataclasses.replace(config, **known)


def rate_of(schedule, learning_rate, warmup_steps, steps):
    """Returns the learning rate of a run, a schedule of Keras.

    Args:
        schedule: str, "cosine" or "exponential", see `train_parti`.
        learning_rate: float. Its peak.
        warmup_steps: int.
        steps: int. Those of the whole run.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(
            f"`schedule` must be one of {SCHEDULES}. Received: {schedule!r}"
        )
    if schedule == "cosine":
        return warmup_cosine(learning_rate, warmup_steps, steps)
    hold = max(warmup_steps, steps * 85 // 450)
    return WarmupExponential(learning_rate, warmup_steps, hold, max(steps, hold + 1))


def validation_batches(caches, vocabulary, batch_size):
    """Returns the validation batches of the caches that have some, or None.

    Args:
        caches: as `train_parti` takes them.
        vocabulary: `keras_parti.text.Vocabulary`.
        batch_size: int. Pictures a batch.
    """
    if caches := held_out(caches):
        return batches(caches, "validation", vocabulary, batch_size)
    return None


def _check_fields(config, wanted, whose):
    for name, value in wanted.items():
        found = getattr(config, name)
        if found != value:
            raise ValueError(
                f"`{name}` of the model must be {value}, to fit {whose}. "
                f"Received: {name}={found}"
            )


def held_out(caches):
    """Returns those of the caches that have a validation split, as a dict to weights.

    Args:
        caches: as `train_parti` takes them.
    """
    caches = caches if isinstance(caches, dict) else {caches: 1.0}
    return {c: weight for c, weight in caches.items() if has_split(c, "validation")}


def _check_mix(caches):
    tokenizers = {str(cache): read_manifest(cache)["tokenizer"] for cache in caches}
    if len(set(tokenizers.values())) > 1:
        raise ValueError(f"`caches` must be of one tokenizer. Received: {tokenizers}")
    for cache, weight in caches.items():
        if not weight > 0:
            raise ValueError(
                f"The weight of a cache must be positive. Received: {weight} of {cache}"
            )
