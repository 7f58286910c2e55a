"""Trains a ViT-VQGAN on pictures, with all the losses of the paper."""

import dataclasses
import functools
import os
from pathlib import Path

import keras
import tensorflow as tf

from keras_parti import data
from keras_parti.models import Discriminator, ViTVQGAN, load_perceptual
from keras_parti.optimizers import warmup_cosine
from keras_parti.training import workdir as runs
from keras_parti.training.adversarial import AdversarialTraining
from keras_parti.training.code_merging import (
    check_normalized,
    check_similarity,
    merge_codes,
)
from keras_parti.training.codebook import CodebookRevival
from keras_parti.training.panels import Panels
from keras_parti.training.patch_start import (
    BIAS,
    PatchStart,
    fit_decoder,
    fit_encoder,
)

# Vectors a code that are looked at to see which codes are in use: of 2048 codes, those
# of 512 pictures of 256 tokens.
REVIVAL_SAMPLE = 64
# Patches that the towers are fitted to. More bring the encoder nothing; the decoder of
# photographs had 33.39 dB of 2**16 patches and 33.52 of three times as many.
START_SAMPLES = {"encoder": 2**16, "decoder": 2**18}
# Patches of which the codebook looks at one, after such a start: as many of four times
# the pictures brought 0.6 dB of held-out photographs. Each revival reads as many, too.
START_EVERY = 4
VALIDATION = 128  # pictures, after each epoch
MERGE_SAMPLE = 1024  # pictures; once, so it may take longer


class PatchwiseViTVQGAN(ViTVQGAN):
    """A ViT-VQGAN without its blocks and its quantizer: an autoencoder of patches.

    The same config and weights. Its steps are cheap, and a ViT-VQGAN that starts from
    its weights, with blocks that begin as identities, need not learn first what a
    patch is.

    Both embeddings begin with random biases. The layer norm behind them takes away how
    bright a patch is, and leaves it only beside something that all patches share: after
    250 steps on photographs the reconstruction has 18.4 dB in place of 13.9, after 750
    more than 26 in place of 22.
    """

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        for unused in (*self.encoder.blocks, self.quantizer, *self.decoder.blocks):
            unused.trainable = False
        for tower in (self.encoder, self.decoder):
            for weight in tower.embedding.trainable_variables:
                if weight.name == "bias":
                    start = keras.initializers.RandomNormal(stddev=BIAS)
                    weight.assign(start(weight.shape))

    def call(self, images, training=None):
        vectors = self.encoder.without_blocks(self.centre(images))
        patches = self.decoder.without_blocks(self.quantizer.normalize(vectors))
        return self.pictures(patches)


@dataclasses.dataclass(frozen=True)
class Losses:
    """Which terms the loss of pictures has, and what they weigh.

    The weights' defaults are the paper's; a term whose network is not named is left
    out. See `AdversarialTraining` for what the paper does not say.
    """

    weights: dict | None = None  # of l2, l1, laplace, perceptual, adversarial
    log_scale_floor: float | None = -2.0  # see `keras_parti.losses.LogitLaplace`
    perceptual: str | None = None  # "package", "keras" or a file of weights
    discriminator: str | None = None  # a preset, fitted to the pictures' size
    adversarial_start: int = 0  # steps without the adversarial term
    r1_weight: float = 10.0
    r1_interval: int = 16  # steps


DEFAULT = Losses()


def players(generator, terms, accumulation=1):
    """Returns the training of a generator and of the networks its losses need.

    Args:
        generator: `ViTVQGAN`, or another whose `config` has an `image_size`.
        terms: `Losses`.
        accumulation: int. Parts that a batch is taken in.
    """
    discriminator = None
    if terms.discriminator:
        discriminator = Discriminator.from_preset(
            terms.discriminator,
            dtype=generator.dtype_policy,
            image_size=generator.config.image_size,
        )
    return AdversarialTraining(
        generator,
        terms.weights,
        discriminator,
        load_perceptual(terms.perceptual) if terms.perceptual else None,
        terms.log_scale_floor,
        terms.adversarial_start,
        terms.r1_weight,
        terms.r1_interval,
        accumulation,
    )


def adamw(learning_rate, average=None):
    """Returns the paper's optimiser, of the tokenizer and of its discriminator alike.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        average: float in `[0, 1)`. What a moving average of the weights keeps of
            itself in a step; None for no average. Not in the paper.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 5.1
    """
    return keras.optimizers.AdamW(
        learning_rate,
        beta_1=0.9,
        beta_2=0.99,
        weight_decay=1e-4,
        use_ema=average is not None,
        ema_momentum=average or 0.0,
    )


def train_tokenizer(
    model: ViTVQGAN,
    name_or_dir: str | os.PathLike,
    workdir: str | os.PathLike,
    steps: int = 2_000,
    patchwise_steps: int = 0,
    batch_size: int = 16,
    accumulated_batches: int = 1,
    learning_rate: float = 1e-3,
    patchwise_learning_rate: float | None = None,
    warmup_steps: int = 100,
    final_share: float = 0.01,
    average: float | None = None,
    terms: Losses = DEFAULT,
    patch_start: bool = False,
    revive_codes: bool = True,
    merge_similarity: float | None = None,
    augment: str | None = None,
    steps_per_epoch: int = 100,
    seed: int = 0,
    verbose: str | int = "auto",
) -> None:
    """Trains a tokenizer on a picture set; resumes where `workdir` has a run.

    The paper trains 500,000 steps of 256 pictures, warms the learning rate up to
    1e-4 over 50,000 and lets it fall to 5e-5 along a cosine. The defaults here are
    for small models and small sets: a higher rate, that falls to a hundredth.

    On several replicas: called inside the scope of the strategy that made `model`.

    Args:
        model: `ViTVQGAN`.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        workdir: str or path of the run.
        steps: int. Updates of the whole run, rounded up to whole epochs.
        patchwise_steps: int. Updates before these in which no vector is quantised, with
            the terms l2 and laplace alone; not in the paper.
        batch_size: int. Pictures a batch.
        accumulated_batches: int. Batches whose mean gradient makes one step.
        learning_rate: float. Its peak.
        patchwise_learning_rate: float or None. The peak of `patchwise_steps`; None for
            that of the others. Without blocks a rate ten times as high is no danger.
        warmup_steps: int. Updates of linear warm-up.
        final_share: float in `[0, 1]`. What is left of the peak at the end; 0.5 in the
            paper.
        average: float or None. See `adamw`.
        terms: `Losses`; as they are, those of the paper that need no other network, and
            a floor of the log scale, which is not the paper's.
        patch_start: bool. Whether both towers start fitted to patches, in closed form:
            see `keras_parti.training.patch_start.PatchStart`.
        revive_codes: bool. Whether the codebook starts from data and unused codes
            are placed anew after each epoch but the last fifth of them.
        merge_similarity: float in `(0, 1)` or None. Whether, after all steps, codes
            of at least this cosine become one (`keras_parti.training.code_merging`);
            only in `workdir/model`, so that the run can go on.
        augment: None, "tokenizer" for pictures cropped at random by DALL-E's listing 1,
            as for Parti's tokenizer, or "recolored" for those in other colours too
            (`keras_parti.data.augmentation`).
        steps_per_epoch: int. Updates between two checkpoints.
        seed: int. Seed of the order of the pictures.
        verbose: as in `keras.Model.fit`.

    Raises:
        FileNotFoundError: where the weights of the perceptual network are missing.
        ValueError: where the batch cannot be parted as asked, both starts are asked
            for or one without codes to fit to, plain codes are to be merged, or the
            folder holds a run of another configuration.
    """
    workdir = Path(workdir)
    schedule = {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "steps_per_epoch": steps_per_epoch,
        "augment": augment,
        "final_share": final_share,
    }
    if patch_start and patchwise_steps:
        raise ValueError(
            "`patch_start` replaces `patchwise_steps`: give one of them. "
            f"Received: patch_start={patch_start}, patchwise_steps={patchwise_steps}"
        )
    if patch_start and not revive_codes:
        # Of random codes a decoder made 11 dB of emoji, of placed ones 22.
        raise ValueError(
            "`patch_start` fits the decoder to codes that `revive_codes` has placed, "
            f"which must be True. Received: revive_codes={revive_codes}"
        )
    if merge_similarity is not None:
        check_similarity(merge_similarity)
        check_normalized(model.config)
    # Before the long patchwise part: weights may be missing, and that is said at once.
    whole = players(model, terms, accumulated_batches)
    if patchwise_steps:
        patchwise = PatchwiseViTVQGAN(model.config, dtype=model.dtype_policy)
        weights = terms.weights or {}
        weights = {name: weights[name] for name in ("l2", "laplace") if name in weights}
        simple = Losses(weights, terms.log_scale_floor)
        fit(
            players(patchwise, simple, accumulated_batches),
            name_or_dir,
            workdir / "patchwise",
            patchwise_steps,
            seed=seed,
            verbose=verbose,
            **{**schedule, "learning_rate": patchwise_learning_rate or learning_rate},
        )
        model.set_weights(patchwise.get_weights())
    callbacks = []

    def sample(vectors, epoch=0):
        # Other pictures for each epoch; each time that they pass, other crops.
        order = 1_000_003 * (seed + 1) + epoch
        how = {"shuffle_seed": order, "augment": augment, "repeat": patch_start}
        shuffled = pictures(model, name_or_dir, "train", **how)
        return shuffled.take(-(-vectors // model.config.num_tokens)).batch(16)

    if patch_start:
        few = functools.partial(sample, START_SAMPLES["encoder"])
        callbacks.append(PatchStart(model, fit_encoder, few, seed))
    if revive_codes:
        every = START_EVERY if patch_start else 1
        many = functools.partial(
            sample, every * REVIVAL_SAMPLE * model.config.num_codes
        )
        last = max(1, -(-steps // steps_per_epoch) * 4 // 5)  # placed once at least
        revival = CodebookRevival(model, many, until_epoch=last, seed=seed, every=every)
        callbacks.append(revival)
    if patch_start:
        some = functools.partial(sample, START_SAMPLES["decoder"])
        callbacks.append(PatchStart(model, fit_decoder, some, seed))
    callbacks += panels(model, name_or_dir, workdir)
    fit(
        whole,
        name_or_dir,
        workdir,
        steps,
        seed=seed,
        average=average,
        callbacks=callbacks,
        verbose=verbose,
        **schedule,
    )
    if merge_similarity is not None:
        # Of the model, whose weights are those of the last checkpoint, averaged if they
        # are: the folder's may be merged already, by this command when it ran before.
        trained = type(model)(model.config)
        trained.set_weights(model.get_weights())
        shuffled = pictures(model, name_or_dir, "train", shuffle_seed=seed)
        merge_codes(
            trained, shuffled.take(MERGE_SAMPLE).batch(64), merge_similarity, seed
        )
        trained.save_dir(workdir / "model")


def pictures(model, name_or_dir, split, **kwargs):
    """Returns the pictures of a split at the size of a tokenizer, as a dataset."""
    size = model.config.image_size
    dataset = data.load(name_or_dir, split, image_size=size, **kwargs)
    return dataset.map(lambda example: example["image"])


def panels(model, name_or_dir, workdir):
    """Returns a list of the callback that shows some pictures of the validation split.

    It is empty where nothing is held out. Pictures are in batches that fit the memory:
    the weights of attention grow with the square of the tokens. 64 pictures of 1,024
    take 0.3 GB a head, and as many of 4,096 would take 4.
    """
    if not data.splits(name_or_dir).get("validation"):
        return []
    batch = min(64, max(1, 2**26 // model.config.num_tokens**2))
    held_out = pictures(model, name_or_dir, "validation").take(VALIDATION)
    return [Panels(held_out.batch(batch), Path(workdir) / "logs")]


def fit(
    training,
    name_or_dir,
    workdir,
    steps,
    batch_size,
    learning_rate,
    warmup_steps,
    steps_per_epoch,
    seed,
    average=None,
    final_share=0.01,
    augment=None,
    callbacks=(),
    verbose="auto",
):
    """Trains the players to reproduce the train split; resumes what `workdir` has.

    Args:
        training: `AdversarialTraining` of a generator as `players` takes it.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        workdir: str or path of the run.
        steps: int. Updates of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch, of which a step takes as many as `training`
            accumulates.
        learning_rate: float. Its peak, for both players.
        warmup_steps: int. Updates of linear warm-up.
        steps_per_epoch: int. Updates between two checkpoints.
        seed: int. Seed of the order of the pictures.
        average: float or None. See `adamw`.
        final_share: float in `[0, 1]`. What is left of the peak at the end.
        augment: None, or a kind of random crop, as `keras_parti.data.load` takes it.
        callbacks: Keras callbacks.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: where the batch cannot be divided into its parts.
    """
    parts = tf.distribute.get_strategy().num_replicas_in_sync
    if training.discriminator is not None:
        parts *= training.discriminator.config.group_size
    if batch_size % parts:
        raise ValueError(
            "`batch_size` must be a multiple of replicas × the discriminator's group, "
            f"{parts}. Received: batch_size={batch_size}"
        )
    epochs = -(-steps // steps_per_epoch)
    updates = epochs * steps_per_epoch
    schedule = warmup_cosine(learning_rate, warmup_steps, updates, final_share)
    training.compile(adamw(schedule, average), adamw(schedule))
    rows = batch_size * training.accumulation

    def batches(skipped):
        order = {"shuffle_seed": seed, "repeat": True, "skipped": skipped * rows}
        return (
            pictures(training.generator, name_or_dir, "train", augment=augment, **order)
            .batch(rows, drop_remainder=True)
            .map(lambda images: (images, images))
            .prefetch(2)
        )

    runs.fit(training, batches, workdir, epochs, steps_per_epoch, callbacks, verbose)
