"""Trains CoCa on captioned pictures: to find each other, and to caption."""

import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_parti import data
from keras_parti.data.augmentation import shift_and_flip
from keras_parti.data.captions import draw_text
from keras_parti.data.ordering import counted, in_order, mixed, of_pass
from keras_parti.losses import TextCrossEntropy
from keras_parti.metrics import recall
from keras_parti.models import CoCa, ViTVQGAN
from keras_parti.models.choosing import same_texts, similarities
from keras_parti.optimizers import AdamW, warmup_cosine
from keras_parti.pixels import to_uint8
from keras_parti.text import Vocabulary
from keras_parti.training import workdir as runs
from keras_parti.training.averages import averaged
from keras_parti.training.contrastive import GlobalContrastive
from keras_parti.training.preparation import warn_of_cut_captions

# λ_Con of equation 4 is 1 and that of L_Con the sum of two directions, of which ours is
# the mean; λ_Cap is 2.
LOSS_WEIGHTS = {"embeddings": 2.0 * 1.0, "tokens": 2.0}


# Bytes of a set's pictures that are held at a time: 87,381 of 64 x 64. A set of no more
# is decoded once.
IN_MEMORY = 2**30

# Held-out pictures that recall is measured on after each epoch, at most.
MEASURED = 512


def compile_coca(
    model: CoCa,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    average: float | None = None,
) -> None:
    """Compiles a CoCa with the paper's losses and weights.

    The paper's optimiser is Adafactor with these β and this weight decay, which saves
    memory that small models need not save; the clipping is not published.

    Args:
        model: `CoCa`; a reranker is trained to compare alone.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        average: float in `(0, 1)` or None. Share that a moving average of the weights
            keeps of itself at each batch; None keeps none, as the paper.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2205.01917), section 4.1
    """
    optimizer = AdamW(
        learning_rate,
        beta_1=0.9,
        beta_2=0.999,
        weight_decay=0.01,
        global_clipnorm=1.0,
        use_ema=average is not None,
        ema_momentum=average or 0.0,
    )
    optimizer.exclude_from_weight_decay(
        [v for v in model.trainable_variables if len(v.shape) < 2]
    )
    losses = {"embeddings": GlobalContrastive(), "tokens": TextCrossEntropy()}
    names = ["embeddings"]
    if model.config.multimodal_layers is not None:
        names.append("tokens")
    model.compile(
        optimizer,
        loss={name: losses[name] for name in names},
        loss_weights={name: LOSS_WEIGHTS[name] for name in names},
        jit_compile=False,  # as Parti's
    )


def batches(
    sets,
    vocabulary,
    batch_size,
    image_size,
    seed=0,
    tokenizer=None,
    reconstructed=0.5,
    shift=4,
    flip_rate=0.5,
    captions=True,
    together=1,
    skipped=0,
):
    """Returns batches of the split `train` of picture sets as CoCa's `fit` takes them.

    Args:
        sets: str, a picture set as `keras_parti.data.load` takes it, or a dict of such
            to weights: how often a picture is drawn from each.
        vocabulary: `keras_parti.text.Vocabulary`.
        batch_size: int. Pictures a batch: also how many each text is to choose from.
        image_size: int. Side of the pictures in pixels.
        seed: int. Seed of the order, of the texts drawn and of the augmentation.
        tokenizer: `ViTVQGAN` or None. With one, some pictures are shown as it
            reconstructs them: what is to be ranked has passed through its decoder.
        reconstructed: float in `[0, 1]`. The share of these pictures.
        shift: int. Pixels that a picture is moved by at most, its edges mirrored.
        flip_rate: float in `[0, 1]`. How often a picture is mirrored. What is written
            in it cannot be read then; 0 for such sets.
        captions: bool. Whether there is a captioning loss.
        together: int. With 1 pictures come one by one. With more, one name after the
            other, each with so many of its pictures at most: a text is then to choose
            among the styles and tones of one thing, which a batch drawn at random
            seldom holds. All names are drawn equally often. Of a set that does not fit
            into `IN_MEMORY`, a part at a time is looked at so.
        skipped: int. First batches that are left out.

    Returns:
        `tf.data.Dataset` of pairs of dicts: `images` and `text_ids`; and `embeddings`,
        which the loss does not look at, and with captions `tokens`, the next ids.

    Raises:
        ValueError: as `keras_parti.data.load`, or a weight is not positive, `together`
            is not, or the set has no captions.
    """
    if together < 1:
        raise ValueError(f"`together` must be at least 1. Received: {together}")
    sets = sets if isinstance(sets, dict) else {sets: 1.0}
    for name, weight in sets.items():
        if not weight > 0:
            raise ValueError(
                f"The weight of a set must be positive. Received: {weight} of {name}"
            )
    again = round(reconstructed * batch_size) if tokenizer is not None else 0
    first = skipped * batch_size
    if len(sets) == 1:
        dataset = _shuffled(*sets, image_size, seed, together, first)
    else:
        datasets = [_shuffled(name, image_size, seed, together) for name in sets]
        dataset = mixed(datasets, list(sets.values()), seed).skip(first)

    def choose(index, example):
        own = tf.stack([tf.constant(seed, tf.int64), index])
        seeds = tf.unstack(tf.random.split(tf.cast(own, tf.int32), 2))
        image = tf.cast(example["image"], tf.float32) / 255.0
        image = shift_and_flip(image, shift, flip_rate, seeds[0])
        return image, draw_text(example, seeds[1])

    def encode(images, texts):
        if again:
            rebuilt = tokenizer.decode(tokenizer.encode(images[:again]))
            images = tf.concat([rebuilt, images[again:]], axis=0)
        text_ids = vocabulary.encode_tensor(texts)["ids"]
        targets = {"embeddings": tf.zeros_like(text_ids[:, 0])}
        if captions:
            targets["tokens"] = text_ids[:, 1:]
        return {"images": images, "text_ids": text_ids}, targets

    return (
        dataset.enumerate(first)
        .map(choose, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size, drop_remainder=True)
        .map(encode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(2)
    )


def _shuffled(name, image_size, seed, together, skipped=0):
    """The training pictures of a set with their texts, for ever but the first ones."""
    count = max(1, data.splits(name)["train"])
    at_a_time = min(count, max(1, IN_MEMORY // (3 * image_size**2)))
    in_memory = at_a_time == count
    order = {}
    if not in_memory:
        order = {"shuffle_seed": seed, "repeat": True}
        # The pictures of one name are not those that come one after the other.
        order["skipped"] = skipped if together == 1 else 0
    dataset = data.load(name, "train", image_size=image_size, **order)
    features = dataset.element_spec
    if not {"captions", "name"} <= features.keys():
        raise ValueError(
            "CoCa is trained on pictures with `captions` and a `name`. "
            f"Received: {name} with {', '.join(features)}"
        )

    def pack(example):
        # 12 kB a picture of 64 x 64, a quarter of what floats take.
        image = tf.cast(tf.round(255.0 * example["image"]), tf.uint8)
        return {"image": image, **_texts(example)}

    dataset = dataset.map(pack)
    if together == 1 and in_memory:
        return in_order(counted(dataset.cache()), seed, skipped=skipped)
    if together == 1:
        return dataset

    def by_name(pictures):
        return pictures.group_by_window(
            lambda example: tf.strings.to_hash_bucket_fast(example["name"], 2**62),
            lambda _, pictures: pictures.ragged_batch(at_a_time),
            window_size=at_a_time,
        )

    if in_memory:
        names = in_order(counted(by_name(dataset).cache()), seed)
    else:  # those of one name that are in memory together
        parts = dataset.window(at_a_time).map(tf.data.Dataset.zip)
        names = parts.enumerate().flat_map(
            lambda number, part: of_pass(by_name(part), seed, number, at_a_time)
        )

    def choose(index, pictures):
        rows = tf.range(tf.shape(pictures["image"])[0])
        own = tf.cast(tf.stack([tf.constant(seed, tf.int64), index]), tf.int32)
        rows = tf.random.experimental.stateless_shuffle(rows, own)[:together]
        return {key: tf.gather(value, rows) for key, value in pictures.items()}

    return names.enumerate().map(choose).unbatch().skip(skipped)


def _texts(example):
    texts = {key: example[key] for key in ("captions", "name")}
    return texts | {"synonyms": example.get("synonyms", example["captions"][:0])}


class Recall(keras.callbacks.Callback):
    """Measures after each epoch how often pictures and their captions find each other.

    Adds to the epoch's logs, which TensorBoard draws, `val_image_to_text_r1` and
    `val_text_to_image_r1`, the share of held-out pictures whose caption comes first
    among all, and the other way round. Where weights are averaged, the averages are
    what is measured.

    Args:
        images: uint8 `(count, height, width, 3)`.
        text_ids: int32 `(count, text_length)`.
        right: bool `(count, count)`: whose caption is the picture's own or equal to it.
    """

    def __init__(self, images, text_ids, right):
        super().__init__()
        self.images = images
        self.text_ids = text_ids
        self.right = right

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        with averaged([(optimizer, self.model.trainable_variables)]):
            scores = similarities(self.model, self.images, self.text_ids)
        logs["val_image_to_text_r1"] = float(recall(scores, 1, self.right))
        logs["val_text_to_image_r1"] = float(recall(scores.T, 1, self.right))


def held_out(name, split, vocabulary, image_size):
    """Returns the first pictures of a split, and the ids of their captions, or names.

    Warns where these are longer than the vocabulary's rows.

    Args:
        name: str. A picture set, as `keras_parti.data.load` takes it.
        split: str.
        vocabulary: `keras_parti.text.Vocabulary`.
        image_size: int. Side of the pictures in pixels.

    Returns:
        uint8 `(count, image_size, image_size, 3)`, int32 `(count, text_length)`, and
        bool `(count, count)`: whose texts are equal.
    """
    examples = list(data.load(name, split, image_size=image_size).take(MEASURED))
    floats = np.stack([example["image"].numpy() for example in examples])
    images = to_uint8(floats)
    texts = [draw_text(_texts(example), None).numpy() for example in examples]
    warn_of_cut_captions(texts, vocabulary, f"{name}, {split}")
    return images, vocabulary.encode(texts), same_texts(texts)


def train_coca(
    model: CoCa,
    sets: str | dict[str, float],
    vocabulary: Vocabulary,
    workdir: str | os.PathLike,
    steps: int = 3_000,
    batch_size: int = 64,
    learning_rate: float = 8e-4,
    warmup_steps: int = 100,
    tokenizer: ViTVQGAN | None = None,
    reconstructed: float = 0.5,
    shift: int = 4,
    flip_rate: float = 0.5,
    average: float | None = None,
    together: int = 1,
    steps_per_epoch: int = 100,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> None:
    """Trains a CoCa on picture sets; resumes where `workdir` has a run.

    The paper trains 500,000 steps of 65,536 pictures, 2 % of them up to a rate of 8e-4,
    from which it falls linearly; here it falls along a cosine to a hundredth, as that
    of our other models. The texts chosen among are those of the batch of all replicas.

    On several replicas: called inside the scope of the strategy that made `model`.

    Args:
        model: `CoCa`.
        sets: str or dict of str to weights, as `batches` takes them.
        vocabulary: `keras_parti.text.Vocabulary` of the model's text length.
        workdir: str or path of the run.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch.
        learning_rate: float. Its peak.
        warmup_steps: int. Batches of linear warm-up.
        tokenizer: `ViTVQGAN` or None, see `batches`.
        reconstructed: float, see `batches`.
        shift: int, see `batches`.
        flip_rate: float, see `batches`.
        average: float or None, see `compile_coca`.
        together: int, see `batches`.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the order of the pictures and of all that is drawn.
        callbacks: more Keras callbacks.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: where vocabulary or tokenizer do not fit the model, as `batches`,
            or the folder holds a run of another configuration.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2205.01917), section 4.1
    """
    config = model.config
    _check_fits(config, vocabulary, tokenizer)
    sets = sets if isinstance(sets, dict) else {sets: 1.0}
    epochs = -(-steps // steps_per_epoch)
    rate = warmup_cosine(learning_rate, warmup_steps, epochs * steps_per_epoch)
    compile_coca(model, rate, average)
    first = next(iter(sets))
    if data.splits(first).get("validation"):
        found = held_out(first, "validation", vocabulary, config.image_size)
        callbacks = [Recall(*found), *callbacks]
    runs.fit(
        model,
        lambda skipped: batches(
            sets,
            vocabulary,
            batch_size,
            config.image_size,
            seed,
            tokenizer,
            reconstructed,
            shift,
            flip_rate,
            captions=config.multimodal_layers is not None,
            together=together,
            skipped=skipped,
        ),
        workdir,
        epochs,
        steps_per_epoch,
        callbacks,
        verbose,
    )


def _check_fits(config, vocabulary, tokenizer):
    pairs = [("text_length", config.text_length, vocabulary.length)]
    if tokenizer is not None:
        pairs.append(("image_size", config.image_size, tokenizer.config.image_size))
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise ValueError(
                f"`{name}` of the CoCa must be {theirs}, as that of the vocabulary or "
                f"tokenizer. Received: {name}={ours}"
            )
    if vocabulary.size > config.text_vocab_size:
        raise ValueError(
            f"`text_vocab_size` of the CoCa must be at least {vocabulary.size}, the "
            f"size of the vocabulary. Received: {config.text_vocab_size}"
        )
