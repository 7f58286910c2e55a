"""Trains Parti on a token cache: image ids and captions."""

import keras
import tensorflow as tf

from keras_parti import data
from keras_parti.losses import TokenCrossEntropy
from keras_parti.optimizers import warmup_cosine
from keras_parti.training import workdir as runs


def compile_parti(model, learning_rate):
    """Compiles a Parti with token cross-entropy.

    β₁, β₂, the decoupled weight decay and the clipping are the paper's; its Adafactor,
    which saves memory that only large models need, is replaced by AdamW.

    Args:
        model: `Parti`.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 4.1
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate,
        beta_1=0.9,
        beta_2=0.96,
        weight_decay=4.5e-2,
        global_clipnorm=4.0,
    )
    # Norm scales, biases and positions are no matrices of features: decay would only
    # pull them away from where they start.
    optimizer.exclude_from_weight_decay(
        [v for v in model.trainable_variables if len(v.shape) < 2]
    )
    # Measured on two cores at width 192: a step of 32 pictures takes 1.2 s as a plain
    # graph and 2.7 s under XLA, whose matrix products are slower.
    model.compile(optimizer, loss=TokenCrossEntropy(), jit_compile=False)


def batches(cache, split, vocabulary, batch_size, seed=None, canonical_rate=0.5):
    """Returns batches of a token cache as Parti's `fit` takes them.

    Args:
        cache: str or path of a token cache.
        split: str. A split of it.
        vocabulary: `keras_parti.text.Vocabulary`.
        batch_size: int.
        seed: int or None. With a seed, examples are shuffled for ever and a caption
            is drawn each time; without, each comes once with its first caption.
        canonical_rate: float in `[0, 1]`. How often the first caption is drawn; else
            any caption or synonym of the picture is.

    Returns:
        `tf.data.Dataset` of pairs: a dict of `text_ids`, int32 `(batch, text_length)`,
        and `image_ids`, int32 `(batch, num_tokens)`; and the image ids again.
    """
    dataset = data.read_token_cache(cache, split).cache()
    if seed is not None:
        count = max(1, int(dataset.cardinality()))
        dataset = dataset.shuffle(count, seed=seed).repeat()

    def choose(index, example):
        captions = example["captions"]
        if seed is None:
            return example["ids"], captions[0]
        draws = tf.random.stateless_uniform([2], (seed, index))
        others = tf.concat([captions, example["synonyms"]], 0)
        count = tf.cast(tf.shape(others)[0], tf.float32)
        other = others[tf.cast(draws[1] * count, tf.int32)]
        return example["ids"], tf.where(draws[0] < canonical_rate, captions[0], other)

    def encode(ids, captions):
        text_ids = vocabulary.encode_tensor(captions)["ids"]
        return {"text_ids": text_ids, "image_ids": ids}, ids

    return (
        dataset.enumerate()
        .map(choose)
        .batch(batch_size, drop_remainder=seed is not None)
        .map(encode)
        .prefetch(2)
    )


def train_parti(
    model,
    cache,
    vocabulary,
    workdir,
    steps=3_000,
    batch_size=32,
    learning_rate=1e-3,
    warmup_steps=200,
    steps_per_epoch=100,
    seed=0,
    callbacks=(),
    verbose="auto",
):
    """Trains Parti on a token cache; resumes where `workdir` has a run.

    The paper trains 450,000 steps of 8192 pictures at a rate of 4.5e-5. The defaults
    here are for small models and small sets.

    Args:
        model: `Parti`.
        cache: str or path of a token cache, with splits `train` and `validation`.
        vocabulary: `keras_parti.text.Vocabulary`.
        workdir: str or path of the run.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch.
        learning_rate: float. Its peak, from which it falls to a hundredth along a
            cosine.
        warmup_steps: int. Batches of linear warm-up.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the order of the examples and of the captions drawn.
        callbacks: more Keras callbacks.
        verbose: as in `keras.Model.fit`.
    """
    epochs = -(-steps // steps_per_epoch)
    total = epochs * steps_per_epoch
    schedule = warmup_cosine(learning_rate, warmup_steps, total)
    compile_parti(model, schedule)
    validation = batches(cache, "validation", vocabulary, batch_size)
    runs.fit(
        model,
        batches(cache, "train", vocabulary, batch_size, seed),
        workdir,
        epochs,
        steps_per_epoch,
        callbacks,
        verbose,
        validation_data=validation,
    )
