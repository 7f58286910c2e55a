"""Trains Parti on a mesh, on token caches; a killed run goes on, on any other mesh."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_parti.layers.embeddings import BOS, EOS, PAD
from keras_parti.mesh.checkpoints import read_checkpoint, write_checkpoint
from keras_parti.mesh.layouts import Layout
from keras_parti.mesh.parti import ids_before
from keras_parti.mesh.step import MeshStep
from keras_parti.mesh.weights import from_keras, to_keras
from keras_parti.models import Parti, PartiConfig
from keras_parti.text import Vocabulary
from keras_parti.training.guards import check_finite
from keras_parti.training.interruption import alone_in, leave, stop_noted
from keras_parti.training.parti import (
    batches,
    check_fits,
    learning_from,
    rate_of,
    validation_batches,
)
from keras_parti.training.workdir import check_config

logger = logging.getLogger(__name__)


def train_on_mesh(
    config: PartiConfig,
    layout: Layout,
    caches: str | os.PathLike | dict[str, float],
    vocabulary: Vocabulary,
    workdir: str | os.PathLike,
    steps: int = 3_000,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    warmup_steps: int = 200,
    schedule: str = "cosine",
    label_rate: float = 0.0,
    steps_per_epoch: int = 100,
    seed: int = 0,
    initial: Parti | None = None,
    dtype: str = "float32",
    rematerialise: bool = False,
    devices: Sequence[str] | None = None,
) -> Parti:
    """Trains Parti with Adafactor; resumes where `workdir` has a run.

    The run's folder is that of `keras_parti.training.parti.train_parti`: the same
    batches in the same order, `config.json`, `logs/` for TensorBoard with the same
    names, and in the end `model/`, which `keras-parti export` takes. Checkpoints are of
    whole arrays, so that a run goes on with another mesh or layout.

    Args:
        config: `PartiConfig`; what is trained also notes whose ids it learned.
        layout: `keras_parti.mesh.Layout`.
        caches: as in `train_parti`.
        vocabulary: `keras_parti.text.Vocabulary`.
        workdir: str or path of the run.
        steps: int. Batches of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch, over all devices.
        learning_rate: float. Its peak.
        warmup_steps: int. Batches of linear warm-up.
        schedule: str, "cosine" or "exponential", as in `train_parti`.
        label_rate: float, as in `train_parti`.
        steps_per_epoch: int. Batches between two checkpoints.
        seed: int. Seed of the batches' order and of what is hidden in them.
        initial: `Parti` of the config, whose weights the run begins with, and which
            is trained. None: a new one.
        dtype: str, "float32" or "mixed_bfloat16".
        rematerialise: bool. Less memory for one more forward pass.
        devices: list of str or None, see `MeshStep`.

    Returns:
        `Parti`, trained.

    Raises:
        ValueError: the layout does not fit; the folder holds a run of another config;
            as `check_fits` and `learning_from`; a loss stops being finite.
        OSError: a checkpoint cannot be written; the last good one stays whole. Or
            another process trains in the folder.
        SystemExit: of status 143, after SIGTERM and one more checkpoint.
        KeyboardInterrupt: after Ctrl-C and one more checkpoint.
    """
    workdir = Path(workdir)
    epochs = -(-steps // steps_per_epoch)
    rate = rate_of(schedule, learning_rate, warmup_steps, epochs * steps_per_epoch)
    check_fits(config, caches, vocabulary)
    config = learning_from(config, caches, vocabulary=vocabulary.fingerprint)
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = workdir / "checkpoints"
    with alone_in(workdir), stop_noted() as stopped:
        check_config("Parti", config, workdir)
        step = MeshStep(
            config,
            layout,
            batch_size,
            devices,
            dtype=dtype,
            rematerialise=rematerialise,
        )
        found = read_checkpoint(checkpoints, config)
        model = initial or Parti(config)
        model.config = config
        done, arrays = found or (0, from_keras(model))
        step.load(arrays, done)
        data = batches(
            caches,
            "train",
            vocabulary,
            batch_size,
            seed,
            label_rate=label_rate,
            skipped=done,
        ).as_numpy_iterator()
        boards = _Boards(workdir / "logs")
        for epoch in range(done // steps_per_epoch, epochs):
            logs, left = [], (epoch + 1) * steps_per_epoch - step.done
            progress = tqdm(range(left), f"epoch {epoch + 1}", disable=None)
            for _ in progress:
                if number := stopped():
                    write_checkpoint(checkpoints, step.done, step.arrays())
                    leave(number, f"step {step.done} is in {checkpoints}")
                ids = hidden(next(data)[0], config, (seed, step.done))
                learning = float(rate(step.done))
                logs.append(step.train(ids, learning))
                check_finite(logs[-1], f"step {step.done}")
            write_checkpoint(checkpoints, step.done, step.arrays())
            means = {name: np.mean([log[name] for log in logs]) for name in logs[0]}
            boards.write("train", epoch, {**means, "learning_rate": learning})
            tests = _validate(step, caches, vocabulary, batch_size)
            boards.write("validation", epoch, tests)
            words = [f"{name} {value:.4f}" for name, value in means.items()]
            words += [f"val_{name} {value:.4f}" for name, value in tests.items()]
            logger.info("epoch %d of %d: %s", epoch + 1, epochs, ", ".join(words))
    to_keras(step.arrays(), model)
    model.save_dir(workdir / "model")
    return model


def hidden(ids, config, seed):
    """Hides texts and mixes ids, as the first layers of `Parti` do in training.

    Args:
        ids: dict of int arrays `text_ids` and `image_ids`.
        config: `PartiConfig`, whose `condition_dropout_rate` is the share of texts
            replaced by the empty prompt, and `image_mixing_rate` that of pictures into
            whose ids before others are mixed.
        seed: ints. The same hide the same.

    Returns:
        Dict of int arrays `text_ids`, `image_ids` and `before_ids`.
    """
    random = np.random.default_rng(seed)
    rows, length = ids["text_ids"].shape
    empty = np.full(length, PAD)
    empty[:2] = BOS, EOS
    dropped = random.random((rows, 1)) < config.condition_dropout_rate
    before = ids_before(ids["image_ids"], config.num_codes)
    mixed = random.random((rows, 1)) < config.image_mixing_rate
    share = np.where(mixed, random.random((rows, 1)), 0.0)
    others = random.random(before.shape) < share
    return {
        "text_ids": np.where(dropped, empty, ids["text_ids"]),
        "image_ids": ids["image_ids"],
        "before_ids": np.where(others, np.roll(before, 1, axis=0), before),
    }


def _validate(step, caches, vocabulary, batch_size):
    """Returns the mean figures of the validation split's whole batches."""
    data = validation_batches(caches, vocabulary, batch_size)
    if data is None:
        return {}
    logs = [
        step.evaluate(ids)
        for ids, _ in data.as_numpy_iterator()
        if len(ids["image_ids"]) == batch_size
    ]
    return {name: np.mean([log[name] for log in logs]) for name in (logs or [{}])[0]}


class _Boards:
    """Scalars for TensorBoard, under the names that Keras gives them."""

    def __init__(self, folder):
        self.folder, self.writers = folder, {}

    def write(self, name, epoch, figures):
        if not figures:
            return
        if name not in self.writers:
            path = str(self.folder / name)
            self.writers[name] = tf.summary.create_file_writer(path)
        with self.writers[name].as_default(step=epoch):
            for figure, value in figures.items():
                tf.summary.scalar(f"epoch_{figure}", value)
        # A run killed after its checkpoint would leave a gap in the curves.
        self.writers[name].flush()
