"""The files of a run's checkpoints: written whole, and the newest good one read."""

import logging

import numpy as np

from keras_parti.data.arrays import read_npz
from keras_parti.files import written_whole

logger = logging.getLogger(__name__)

KEPT = 2  # the one before the last serves if the last is broken


def write_newest(path, /, *values, **named):
    """Writes arrays as the newest file of its folder, and removes all but two.

    A killed run or a full disk leaves the last good checkpoint whole.

    Args:
        path: `pathlib.Path`, whose name is a number, as `position` reads it. The folder
            is made where it does not exist.
        *values: arrays, which are found again as `arr_0`, `arr_1`, ...
        **named: arrays.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        np.savez(part, *values, **named)
    for old in _files(path.parent)[:-KEPT]:
        old.unlink()


def read_newest(folder, check):
    """Reads the newest checkpoint that is whole and of this run.

    Args:
        folder: `pathlib.Path`.
        check: function of the dict of arrays and the file's name, which returns what
            is wanted of them, or raises `ValueError` where they are of another run.

    Returns:
        A pair of the file's `position` and of what `check` returned; None where there
        is no checkpoint.

    Raises:
        ValueError: there are checkpoints, and none can be used. To begin again would
            soon delete them.
    """
    reason = None
    for path in reversed(_files(folder)):
        try:
            found = check(read_npz(path), path.name)
        except (OSError, ValueError) as error:
            logger.warning("%s is broken, trying the one before: %s", path, error)
            reason = error
            continue
        logger.info("Restored %s", path)
        return position(path), found
    if reason is None:
        return None
    raise ValueError(
        f"No checkpoint in {folder} can be used: {reason}. Choose another workdir, or "
        "give the options that the run began with."
    )


def newest(folder):
    """Returns the `position` of the newest checkpoint, whole or not; None without one.

    Args:
        folder: `pathlib.Path`, which need not be there.
    """
    files = _files(folder)
    return position(files[-1]) if files else None


def position(path):
    """Returns the two numbers of a name: `000003+000017.npz` is 3 and 17.

    Those are epochs done and steps of the next, or steps done and 0.
    """
    first, _, second = path.stem.partition("+")
    return int(first), int(second or 0)


def _files(folder):
    return sorted(folder.glob("[0-9]*.npz"), key=position)
