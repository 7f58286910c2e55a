"""Checkpoints of a run on a mesh: whole arrays, which any other mesh can load."""

from keras_parti.mesh.variables import arrays_of
from keras_parti.training.checkpoints import read_newest, write_newest


def write_checkpoint(folder, done, arrays):
    """Writes `folder/<done>.npz`, as `write_newest`.

    Args:
        folder: path. Made where it does not exist.
        done: int. Steps that were done.
        arrays: dict from names to arrays.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    write_newest(folder / f"{done:08d}.npz", **arrays)


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

    def check(arrays, name):
        for array in arrays_of(config):
            found = arrays[array.name].shape if array.name in arrays else None
            if found != array.shape:
                raise ValueError(
                    f"{name} must hold `{array.name}` of shape {array.shape}. "
                    f"Received: {found}"
                )
        return arrays

    newest = read_newest(folder, check)
    if newest is None:
        return None
    (done, _), arrays = newest
    return done, arrays
