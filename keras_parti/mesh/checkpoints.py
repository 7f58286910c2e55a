"""Checkpoints of a run on a mesh: whole arrays, which any other mesh can load."""

import logging

import numpy as np

from keras_parti.data.arrays import read_npz
from keras_parti.files import written_whole
from keras_parti.mesh.variables import arrays_of

logger = logging.getLogger(__name__)

KEPT = 2  # the one before the last serves if the last is broken


def write_checkpoint(folder, done, arrays):
    """Writes `folder/<done>.npz`, and removes all but the last two.

    A killed run or a full disk leaves the last good checkpoint whole.

    Args:
        folder: path. Made where it does not exist.
        done: int. Steps that were done.
        arrays: dict from names to arrays.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / f"{done:08d}.npz") as part:
        np.savez(part, **arrays)
    for old in sorted(folder.glob("[0-9]*.npz"))[:-KEPT]:
        old.unlink()


def read_checkpoint(folder, config):
    """Reads the newest checkpoint that is whole.

    Args:
        folder: path.
        config: `PartiConfig` of the run.

    Returns:
        The number of steps done and a dict from names to arrays, or None where there
        is no checkpoint.

    Raises:
        ValueError: there are checkpoints, and none can be used.
    """
    reason = None
    for path in sorted(folder.glob("[0-9]*.npz"), reverse=True):
        try:
            return int(path.stem), _read(path, config)
        except (OSError, ValueError) as error:
            logger.warning("%s is broken, trying the one before: %s", path, error)
            reason = error
    if reason is not None:
        raise ValueError(f"No checkpoint in {folder} can be used: {reason}.")
    return None


def _read(path, config):
    arrays = read_npz(path)
    for array in arrays_of(config):
        found = arrays[array.name].shape if array.name in arrays else None
        if found != array.shape:
            raise ValueError(
                f"{path.name} must hold `{array.name}` of shape {array.shape}. "
                f"Received: {found}"
            )
    return arrays
