"""Trains a ViT-VQGAN on pictures: VQ, ℓ2 and logit-Laplace losses."""

from pathlib import Path

import keras

from keras_parti import data
from keras_parti.losses import LogitLaplace
from keras_parti.models import ViTVQGAN
from keras_parti.optimizers import warmup_cosine
from keras_parti.training import workdir as runs
from keras_parti.training.codebook import CodebookRevival, Reconstruction

# The weights of section 3.3; the perceptual and adversarial terms are not part of
# this training.
LOSS_WEIGHTS = {"images": 1.0, "laplace": 0.1}

# Pictures that are encoded to see which codes are in use: at 256 tokens each, some 60
# vectors for each of 2048 codes.
REVIVAL_SAMPLE = 512


class PatchwiseViTVQGAN(ViTVQGAN):
    """A ViT-VQGAN without its blocks and its quantizer: an autoencoder of patches.

    The same config and weights. Its steps are cheap, and a ViT-VQGAN that starts from
    its weights, with blocks that begin as identities, need not learn first what a
    patch is.
    """

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        for unused in (*self.encoder.blocks, self.quantizer, *self.decoder.blocks):
            unused.trainable = False

    def call(self, images, training=None):
        vectors = self.encoder.without_blocks(self.centre(images))
        patches = self.decoder.without_blocks(self.quantizer.normalize(vectors))
        return self.pictures(patches)


def compile_tokenizer(model, learning_rate, log_scale_floor=None, loss_weights=None):
    """Compiles a ViT-VQGAN with the paper's losses and optimiser.

    Args:
        model: `ViTVQGAN`.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        log_scale_floor: float or None. See `keras_parti.losses.LogitLaplace`.
        loss_weights: dict of `images` and `laplace`, or None for the paper's.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), sections 3.3 and 4.1
    """
    losses = {"images": keras.losses.MeanSquaredError()}
    if model.config.output == "logit_laplace":
        losses["laplace"] = LogitLaplace(model.config.laplace_epsilon, log_scale_floor)
    loss_weights = loss_weights or LOSS_WEIGHTS
    model.compile(
        keras.optimizers.AdamW(
            learning_rate, beta_1=0.9, beta_2=0.99, weight_decay=1e-4
        ),
        loss=losses,
        loss_weights={name: loss_weights[name] for name in losses},
        # Measured on two cores at width 128: a step of 32 pictures takes 1.45 s as a
        # plain graph and 1.63 s under XLA, whose matrix products are slower.
        jit_compile=False,
    )


def train_tokenizer(
    model,
    name_or_dir,
    workdir,
    steps=2_000,
    patchwise_steps=0,
    batch_size=16,
    learning_rate=1e-3,
    warmup_steps=100,
    log_scale_floor=-2.0,
    loss_weights=None,
    revive_codes=True,
    steps_per_epoch=100,
    seed=0,
    verbose="auto",
):
    """Trains a tokenizer on a picture set; resumes where `workdir` has a run.

    The paper trains 500,000 steps of 256 pictures, warms the learning rate up to
    1e-4 over 50,000 and lets it fall to 5e-5 along a cosine. The defaults here are
    for small models and small sets: a higher rate, that falls to a hundredth.

    Args:
        model: `ViTVQGAN`.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        workdir: str or path of the run.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        patchwise_steps: int. Batches before these in which no vector is quantised;
            not in the paper.
        batch_size: int. Pictures a batch.
        learning_rate: float. Its peak.
        warmup_steps: int. Batches of linear warm-up.
        log_scale_floor: float or None. See `keras_parti.losses.LogitLaplace`.
        loss_weights: dict of `images` and `laplace`, or None for the paper's.
        revive_codes: bool. Whether the codebook starts from data and unused codes
            are placed anew after each epoch but the last fifth of them.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the order of the pictures.
        verbose: as in `keras.Model.fit`.
    """
    size, workdir = model.config.image_size, Path(workdir)

    def pictures(split, **kwargs):
        dataset = data.load(name_or_dir, split, image_size=size, **kwargs)
        return dataset.map(lambda example: example["image"])

    def fit(model, folder, steps, callbacks):
        epochs = -(-steps // steps_per_epoch)
        total = epochs * steps_per_epoch
        schedule = warmup_cosine(learning_rate, warmup_steps, total)
        compile_tokenizer(model, schedule, log_scale_floor, loss_weights)
        targets = list(model.loss)
        dataset = (
            pictures("train", shuffle_seed=seed, repeat=True)
            .batch(batch_size, drop_remainder=True)
            .map(lambda images: (images, dict.fromkeys(targets, images)))
            .prefetch(2)
        )
        runs.fit(model, dataset, folder, epochs, steps_per_epoch, callbacks, verbose)

    if patchwise_steps:
        patchwise = PatchwiseViTVQGAN(model.config, dtype=model.dtype_policy)
        fit(patchwise, workdir / "patchwise", patchwise_steps, [])
        model.set_weights(patchwise.get_weights())
    validation = pictures("validation").take(128).batch(64)
    callbacks = [Reconstruction(validation, workdir / "logs")]
    if revive_codes:

        def sample(epoch):
            # A seed for each epoch: one dataset would go on from where it was.
            shuffled = pictures("train", shuffle_seed=1_000_003 * (seed + 1) + epoch)
            return shuffled.take(REVIVAL_SAMPLE).batch(64)

        last = -(-steps // steps_per_epoch) * 4 // 5
        callbacks.insert(0, CodebookRevival(sample, until_epoch=last, seed=seed))
    fit(model, workdir, steps, callbacks)
