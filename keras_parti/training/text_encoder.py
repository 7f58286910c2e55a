"""Trains Parti's text encoder before Parti: hidden pieces, and pictures to texts."""

import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_parti.layers.embeddings import EOS, PAD, UNK
from keras_parti.losses import TextCrossEntropy
from keras_parti.models import TextEncoder
from keras_parti.optimizers import warmup_cosine
from keras_parti.text import Vocabulary
from keras_parti.training import parti
from keras_parti.training import workdir as runs
from keras_parti.training.contrastive import GlobalContrastive


def hide_tokens(text_ids, vocabulary_size, seed, rate=0.15):
    """Hides some tokens of each text, as BERT does.

    A token is hidden with probability `rate`, and at least one of a text that has any:
    captions are short, and of five tokens 15 % is none in four texts of nine. Of the
    hidden ones 80 % become `unk`, which texts never hold (their odd characters are
    bytes), 10 % another token, and 10 % stay what they are.

    Args:
        text_ids: int32 tensor `(batch, length)`: bos, pieces, eos, padding.
        vocabulary_size: int. Ids of the vocabulary.
        seed: pair of ints, or of integer tensors. Equal seeds hide the same.
        rate: float in `[0, 1)`.

    Returns:
        Two int32 tensors `(batch, length)`: what the encoder reads, and what it is to
        tell: the token where one was hidden, else padding.
    """
    shape = tf.shape(text_ids)
    draws = tf.random.stateless_uniform([3, shape[0], shape[1]], seed)
    # 2 is more than any draw: special tokens are never hidden.
    chances = tf.where(text_ids > EOS, draws[0], 2.0)
    first = tf.reduce_min(chances, axis=1, keepdims=True)
    hidden = (chances < rate) | ((chances == first) & (first < 2.0))
    kinds = draws[1]
    other = EOS + 1 + tf.cast(draws[2] * (vocabulary_size - EOS - 1), tf.int32)
    replaced = tf.where(kinds < 0.8, UNK, tf.where(kinds < 0.9, other, text_ids))
    return tf.where(hidden, replaced, text_ids), tf.where(hidden, text_ids, PAD)


def batches(caches, split, vocabulary, batch_size, seed=None, rate=0.15, skipped=0):
    """Returns batches of token caches as a text encoder's `fit` takes them.

    Args:
        caches: str or path of a token cache, or a dict of such to weights.
        split: str. A split of them.
        vocabulary: `keras_parti.text.Vocabulary`.
        batch_size: int.
        seed: int or None, as of `keras_parti.training.parti.batches`.
        rate: float. Share of the tokens hidden, see `hide_tokens`.
        skipped: int. First batches that are left out.

    Returns:
        `tf.data.Dataset` of pairs of dicts: `text_ids` and `image_ids`; and `tokens`,
        the hidden ones, and `embeddings`, which the loss does not look at.
    """
    dataset = parti.batches(
        caches, split, vocabulary, batch_size, seed, skipped=skipped
    )

    def hide(index, pair):
        inputs, image_ids = pair
        draw = (seed or 0, index)
        read, told = hide_tokens(inputs["text_ids"], vocabulary.size, draw, rate)
        targets = {"tokens": told, "embeddings": image_ids[:, 0]}
        return {"text_ids": read, "image_ids": image_ids}, targets

    return dataset.enumerate(skipped).map(hide)


def compile_text_encoder(
    model: TextEncoder,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    contrastive_weight: float = 1.0,
) -> None:
    """Compiles a text encoder with both losses and the optimiser of our Parti.

    Args:
        model: `TextEncoder`.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        contrastive_weight: float. Weight of the contrastive loss.
    """
    model.compile(
        parti.optimizer_of(model, learning_rate),
        loss={"tokens": TextCrossEntropy(), "embeddings": GlobalContrastive()},
        loss_weights={"tokens": 1.0, "embeddings": contrastive_weight},
        jit_compile=False,  # as Parti's
    )


def train_text_encoder(
    model: TextEncoder,
    caches: str | os.PathLike | dict[str, float],
    vocabulary: Vocabulary,
    workdir: str | os.PathLike,
    steps: int = 3_000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    warmup_steps: int = 200,
    mask_rate: float = 0.15,
    contrastive_weight: float = 1.0,
    steps_per_epoch: int = 100,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> None:
    """Trains a text encoder on token caches; resumes where `workdir` has a run.

    The paper's schedule and the weight of its contrastive loss are not published; the
    optimiser is that of our Parti.

    Args:
        model: `TextEncoder`.
        caches: str or path of a token cache, or a dict of such to weights. The
            validation split may be missing.
        vocabulary: `keras_parti.text.Vocabulary`.
        workdir: str or path of the run.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        batch_size: int. Texts a batch, of all replicas together: also how many pictures
            each is to choose from.
        learning_rate: float. Its peak, from which it falls to a hundredth along a
            cosine.
        warmup_steps: int. Batches of linear warm-up.
        mask_rate: float. Share of the tokens hidden, see `hide_tokens`.
        contrastive_weight: float. Weight of the contrastive loss; 0 leaves it out.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the order of the examples and of what is hidden.
        callbacks: more Keras callbacks.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: as `check_fits` and `learning_from` of `keras_parti.training.parti`,
            or the folder holds another run.
    """
    parti.check_fits(model.config, caches, vocabulary)
    words = vocabulary.fingerprint
    model.config = parti.learning_from(model.config, caches, vocabulary=words)
    validation = None
    if held_out := parti.held_out(caches):
        validation = batches(
            held_out, "validation", vocabulary, batch_size, rate=mask_rate
        )
    epochs = -(-steps // steps_per_epoch)
    rate = warmup_cosine(learning_rate, warmup_steps, epochs * steps_per_epoch)
    compile_text_encoder(model, rate, contrastive_weight)
    runs.fit(
        model,
        lambda skipped: batches(
            caches, "train", vocabulary, batch_size, seed, mask_rate, skipped
        ),
        workdir,
        epochs,
        steps_per_epoch,
        callbacks,
        verbose,
        validation_data=validation,
    )
