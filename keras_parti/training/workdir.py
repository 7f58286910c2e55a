"""A training run in a folder: it saves itself, and the same command goes on."""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.data.folder import report_skipped
from keras_parti.files import written_whole
from keras_parti.training.averages import ValidateAverages, averaged
from keras_parti.training.board import Board
from keras_parti.training.checkpoints import read_newest, write_newest
from keras_parti.training.guards import StopAtNonFinite
from keras_parti.training.interruption import alone_in, leave, stop_noted

logger = logging.getLogger(__name__)


def fit(
    model: keras.Model,
    dataset: Any,
    workdir: str | os.PathLike,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
    validation_data: Any = None,
) -> None:
    """Trains a compiled model, from the last checkpoint of a folder if it has one.

    After each epoch the weights, the optimiser's state and the seeds are written to
    `workdir/checkpoints`, and the weights alone as a model folder to
    `workdir/model`. A killed run loses at most one epoch: called again with the
    same arguments it continues, with the batches it would have seen. SIGTERM
    and Ctrl-C let it finish its step and write a checkpoint, so that nothing is lost;
    the figures of that epoch are then of its steps after the interruption.

    Where the optimiser keeps moving averages of the weights (`use_ema`), these are
    what is validated, what `workdir/model` holds, and what the model has in the end;
    a checkpoint holds both.

    Args:
        model: a compiled `ConfigModel`.
        dataset: `tf.data.Dataset` that repeats for ever, the same whenever it is gone
            through (`keras_parti.data.ordering`); or a function that returns it without
            its first batches, called with their number, where that is cheaper than to
            make them and leave them out.
        workdir: str or path. Also receives `logs/` for TensorBoard and `config.json`.
        epochs: int. The whole run's epochs, those done before included.
        steps_per_epoch: int. Batches an epoch.
        callbacks: Keras callbacks; what they add to `logs` goes to TensorBoard.
        verbose: as in `keras.Model.fit`.
        validation_data: as in `keras.Model.fit`.

    Raises:
        ValueError: where the folder holds a run of another configuration or of another
            optimiser, or a loss or a weight stops being finite.
        OSError: another process trains in the folder, the disk is full, or the folder
            cannot be written to.
        SystemExit: of status 143, after SIGTERM.
        KeyboardInterrupt: after Ctrl-C.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    first = is_first(model)
    alone = alone_in(workdir) if first else contextlib.nullcontext()
    with alone, stop_noted() as stopped, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(report_skipped)
        check_config(type(model).__name__, model.config, workdir)
        checkpoints = Checkpoints(workdir, stopped)
        while True:
            done, step = checkpoints.restore(model)
            if done >= epochs:
                break
            before = done * steps_per_epoch + step
            model.fit(
                dataset(before) if callable(dataset) else dataset.skip(before),
                # After the rest of an epoch a new `fit` has the length of the others.
                epochs=done + 1 if step else epochs,
                initial_epoch=done,
                steps_per_epoch=steps_per_epoch - step,
                callbacks=[
                    ValidateAverages(_players),
                    *(c for c in callbacks if not step or not _moves_weights(c)),
                    StopAtNonFinite(before),
                    # Of several workers one draws, or each point would be twofold.
                    *([Board(workdir / "logs")] if first else []),
                    checkpoints,
                ],
                verbose=verbose,
                validation_data=validation_data,
                shuffle=False,  # the dataset has its order; Keras would warn
            )
            if not step:
                return
    words = "%s is trained: %d of %d epochs."
    if done > epochs:
        words = "%s has %d epochs already, more than the %d asked for."
    logger.info(words, workdir, done, epochs)
    for optimizer, moved in _players(model):
        optimizer.finalize_variable_values(moved)


def model_dir(path: str | os.PathLike) -> Path:
    """Returns the model folder of a workdir, or the path itself if it is none."""
    path = Path(path)
    return path / "model" if (path / "model").is_dir() else path


class Checkpoints(keras.callbacks.Callback):
    """Writes `workdir/checkpoints/<epoch>.npz` after each epoch.

    A file holds every variable of the model and its optimiser, and the states of its
    random generators, which Keras' own weight files leave out. A killed run or a full
    disk leaves the last good checkpoint whole. A signal has `<epoch>+<step>.npz`
    written, after a step of the epoch that follows.

    Args:
        workdir: path.
        stopped: function that tells which signal has come, or None.
    """

    def __init__(self, workdir, stopped):
        super().__init__()
        self.stopped = stopped
        self.model_folder = workdir / "model"
        self.folder = workdir / "checkpoints"
        self.epoch = self.step = 0  # where the weights are

    def restore(self, model):
        """Loads the newest readable checkpoint.

        Returns:
            Two ints: the epochs done, and the steps of the next one.

        Raises:
            ValueError: there are checkpoints, and none can be used.
        """
        for optimizer, moved in _players(model):
            optimizer.build(moved)
        variables = _variables(model)
        newest = read_newest(self.folder, functools.partial(_values_of, variables))
        if newest is not None:
            (self.epoch, self.step), values = newest
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return self.epoch, self.step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        # After an epoch's last step its checkpoint is about to be written.
        if self.stopped() and batch + 1 < self.params["steps"]:
            self._write()
            self._leave()

    def on_epoch_end(self, epoch, logs=None):
        if not is_first(self.model):
            # Another worker of the run writes into the same folder. But Keras makes
            # variables when it saves for the first time, which all workers have to do.
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_dir(folder)
            return
        # Before the checkpoint: killed in between, the epoch is done again.
        with averaged(_players(self.model)):
            self.model.save_dir(self.model_folder)
        self.epoch, self.step = epoch + 1, 0
        self._write()
        if self.stopped():
            self._leave()

    def _write(self):
        within = f"+{self.step:06d}" if self.step else ""
        values = map(ops.convert_to_numpy, _variables(self.model))
        write_newest(self.folder / f"{self.epoch:06d}{within}.npz", *values)

    def _leave(self):
        within = f"epoch {self.epoch + 1}, step {self.step}"
        saved = within if self.step else f"epoch {self.epoch}"
        leave(self.stopped(), f"{saved} is in {self.folder}")


def _moves_weights(callback):
    """Whether a callback trains, too, at the beginning of an epoch."""
    return getattr(callback, "moves_weights", False)


def is_first(model):
    """Whether this process is the first worker of a run, or the only one."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy is None or strategy.extended.should_checkpoint


def _values_of(variables, arrays, name):
    """Returns the values of variables from a checkpoint, or raises `ValueError`."""
    values = [arrays.get(f"arr_{i}", np.zeros(0)) for i in range(len(arrays))]
    found, wanted = [[tuple(v.shape) for v in x] for x in (values, variables)]
    if found != wanted:
        raise ValueError(
            f"{name} holds {len(found)} variables, not {len(wanted)}, or of other "
            "shapes, so it is of another optimiser"
        )
    return values


def _variables(model):
    """Returns all that a run must find again, in an order that the config fixes."""
    records = {id(v) for v in model.metrics_variables}
    variables = list(model.variables)
    for optimizer, _ in _players(model):
        records.add(id(getattr(optimizer, "gradient_norm", None)))
        variables += optimizer.variables
    return [v for v in variables if id(v) not in records]


def _players(model):
    """Returns pairs of an optimiser and the variables it moves; a GAN has two."""
    if hasattr(model, "players"):
        return model.players
    return [(model.optimizer, model.trainable_variables)]


def check_config(name, config, workdir):
    """Writes a model's config, or compares it with the one that a run began with.

    Args:
        name: str. The model's class.
        config: a dataclass.
        workdir: path of the run.

    Raises:
        ValueError: the run is of another config; the first field that differs is named.
    """
    path = workdir / "config.json"
    config = {"model": name, **dataclasses.asdict(config)}
    text = json.dumps(config, indent=2) + "\n"
    if not path.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            part.write_text(text)
        return
    config = json.loads(text)  # tuples as lists
    for name, value in json.loads(path.read_text()).items():
        if found := list(_differences(name, value, config.get(name))):
            begun = ", ".join(f"{field}={value!r}" for field, value, _ in found)
            now = ", ".join(f"{field}={value!r}" for field, _, value in found)
            raise ValueError(
                f"{workdir} holds a run with {begun}. Received: {now}. Choose another "
                "workdir."
            )


def _differences(name, begun, now):
    """Yields each field that is not as a run began: its name, then and now."""
    if isinstance(begun, dict) and isinstance(now, dict):
        # Fields of a later release are not among those that the run began with.
        for field, value in begun.items():
            yield from _differences(f"{name}.{field}", value, now.get(field))
    elif begun != now:
        yield name, begun, now
