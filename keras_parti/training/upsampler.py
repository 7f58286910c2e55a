"""Trains a WDSR: originals are made small, enlarged again, and compared."""

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_parti import data, metrics
from keras_parti.models import WDSR, ViTVQGAN
from keras_parti.models.degradation import enlarge, shrink, shrink_to_tokens
from keras_parti.models.wdsr import WDSRConfig
from keras_parti.training.panels import MeasuredPanels
from keras_parti.training.tokenizer import Losses, fit, pictures, players

# As WDSR was published: the mean absolute error alone.
PLAIN = Losses({"l1": 1.0, "l2": 0.0})
VALIDATION = 128  # pictures that are measured after an epoch


@dataclasses.dataclass(frozen=True)
class UpsamplingConfig:
    """What decides a training of an upsampler."""

    wdsr: WDSRConfig
    image_size: int  # pixels, along each side of an original
    tokenizer: str | None  # fingerprint of the one whose reconstructions are enlarged


class Upsampling(keras.Model):
    """Makes originals small and enlarges them again: the generator that is trained.

    The smaller pictures are made on the device and in the step, by
    `keras_parti.models.degradation`.

    Args:
        wdsr: `WDSR`, whose weights are all there is to train.
        image_size: int. Side of the originals, in pixels.
        tokenizer: `ViTVQGAN`, frozen, whose reconstructions are to be enlarged, as in
            Parti; None to enlarge clean pictures.

    Call arguments:
        images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.

    Returns:
        A dict of `images`, float32 of the same shape, as `WDSR` returns it.

    Raises:
        ValueError: `image_size` does not fit the scale, or the tokenizer.
    """

    def __init__(
        self, wdsr: WDSR, image_size: int, tokenizer: ViTVQGAN | None = None
    ) -> None:
        super().__init__(dtype=wdsr.dtype_policy)
        scale = wdsr.scale
        if image_size % scale:
            raise ValueError(
                f"`image_size` must be a multiple of the scale, {scale}. "
                f"Received: image_size={image_size}"
            )
        if tokenizer and tokenizer.config.image_size * scale != image_size:
            raise ValueError(
                f"`image_size` must be {scale} times that of the tokenizer, "
                f"{tokenizer.config.image_size}. Received: image_size={image_size}"
            )
        self.wdsr = wdsr
        if tokenizer is None:
            self.degrade = lambda images: shrink(images, scale)
        else:
            # Hidden in a function, it is no part of this model and its checkpoints.
            self.degrade = lambda images: shrink_to_tokens(images, scale, tokenizer)
        self.config = UpsamplingConfig(
            wdsr.config, image_size, tokenizer and tokenizer.fingerprint()
        )
        self.built = True

    def call(self, images, training=None):
        return self.wdsr(self.degrade(images), training=training)

    def save_dir(self, path: str | os.PathLike) -> None:
        """Writes the upsampler as `ConfigModel.save_dir` does."""
        self.wdsr.save_dir(path)


class UpsamplingPanels(MeasuredPanels):
    """What an upsampler in training is worth beside bicubic interpolation.

    Adds to the epoch's logs `val_psnr` and `val_ssim`, means over pictures in dB and in
    [-1, 1], and `val_psnr_bicubic`, what they are without the model. TensorBoard shows
    nearest | bicubic | WDSR | original. Arguments are those of `MeasuredPanels`; the
    generator is an `Upsampling`.
    """

    title = "upscaling"

    def _measure(self, upsampling):
        scale, panel = upsampling.wdsr.scale, None
        figures = {"val_psnr": [], "val_psnr_bicubic": [], "val_ssim": []}
        for originals in self.pictures:
            small = upsampling.degrade(originals)
            bicubic, ours = enlarge(small, scale), upsampling.wdsr.upscale(small)
            figures["val_psnr"].append(metrics.psnr(originals, ours))
            figures["val_psnr_bicubic"].append(metrics.psnr(originals, bicubic))
            if originals.shape[1] >= metrics.SSIM_WINDOW:
                figures["val_ssim"].append(metrics.ssim(originals, ours))
            if panel is None:
                nearest = enlarge(small, scale, "nearest")
                panel = tf.concat([nearest, bicubic, ours, originals], axis=2)
        means = {
            name: float(
                np.concatenate([ops.convert_to_numpy(v) for v in values]).mean()
            )
            for name, values in figures.items()
            if values
        }
        return means, panel[: self.num_shown]


def train_upsampler(
    model: WDSR,
    name_or_dir: str | os.PathLike,
    workdir: str | os.PathLike,
    tokenizer: ViTVQGAN | None = None,
    image_size: int | None = None,
    steps: int = 5_000,
    batch_size: int = 16,
    accumulated_batches: int = 1,
    learning_rate: float = 1e-3,
    warmup_steps: int = 100,
    average: float | None = None,
    terms: Losses | None = None,
    steps_per_epoch: int = 100,
    seed: int = 0,
    verbose: str | int = "auto",
) -> None:
    """Trains an upsampler on a picture set; resumes where `workdir` has a run.

    With a tokenizer as Parti, on its reconstructions of the originals' nearest pixels;
    without, as WDSR was published, on clean pictures. Originals are random squares of
    the pictures at their own resolution, mirrored and turned at random.

    Parti publishes neither rate nor steps. WDSR's were 1e-3, a tenth of a million steps
    and more of 16 originals of 48 · scale pixels.

    Args:
        model: `WDSR`.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        workdir: str or path of the run.
        tokenizer: `ViTVQGAN` or None. Its weights stay as they are.
        image_size: int. Side of the originals, in pixels; None for `scale` times the
            tokenizer's, or times 48.
        steps: int. Updates of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch.
        accumulated_batches: int. Batches whose mean gradient makes one step.
        learning_rate: float. Its peak.
        warmup_steps: int. Updates of linear warm-up.
        average: float or None. See `keras_parti.training.tokenizer.adamw`.
        terms: `keras_parti.training.tokenizer.Losses`; None for l2, and of the
            others none, with a tokenizer, and for l1 alone without.
        steps_per_epoch: int. Updates between two checkpoints.
        seed: int. Seed of the order of the pictures and of the squares.
        verbose: as in `keras.Model.fit`.

    Raises:
        FileNotFoundError: where the weights of the perceptual network are missing.
        ValueError: where sizes do not fit each other, or the folder holds a run of
            another configuration.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.1
        - [Yu et al., 2018](https://arxiv.org/abs/1808.08718), section 4
    """
    if image_size is None:
        image_size = model.scale * (tokenizer.config.image_size if tokenizer else 48)
    upsampling = Upsampling(model, image_size, tokenizer)
    terms = terms or (Losses() if tokenizer else PLAIN)
    callbacks = []
    if data.splits(name_or_dir).get("validation"):
        originals = pictures(
            upsampling, name_or_dir, "validation", augment="upsampler"
        ).take(VALIDATION)
        logs = Path(workdir) / "logs"
        callbacks.append(UpsamplingPanels(originals.batch(16), logs))
    fit(
        players(upsampling, terms, accumulated_batches),
        name_or_dir,
        workdir,
        steps,
        batch_size,
        learning_rate,
        warmup_steps,
        steps_per_epoch,
        seed,
        average,
        augment="upsampler",
        callbacks=callbacks,
        verbose=verbose,
    )
