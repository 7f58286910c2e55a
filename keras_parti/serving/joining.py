"""Several requests of one signature as one run, along their rows."""

import numpy as np
import tensorflow as tf


def count_rows(run):
    """The rows of a run, or None where it cannot be joined with others.

    It can if every input has one value a row. A default has one row for all of them;
    it is repeated when runs are joined.

    Args:
        run: `servable.Run`.
    """
    if not all(array.ndim for array in run.arrays):
        return None
    sent = {len(a) for i, a in enumerate(run.arrays) if i not in run.filled}
    if len(sent) != 1 or sent == {0}:
        return None
    (rows,) = sent
    if any(len(run.arrays[i]) not in (1, rows) for i in run.filled):
        return None
    return rows


def kind(run):
    """What two runs must have in common to be joined; comparable and hashable."""
    shapes = tuple(array.shape[1:] for array in run.arrays)
    return id(run.servable), run.name, tuple(run.aliases), shapes


def run_joined(runs, rows):
    """Runs several as one.

    Args:
        runs: list of `servable.Run` of one kind.
        rows: list of int, from `count_rows`.

    Returns:
        A list of the outputs of each, or None where the outputs are not by rows, or
        the run fails: one bad row fails all, so each is to be run alone.
    """
    columns = [
        np.concatenate(
            [
                np.repeat(run.arrays[i], n // len(run.arrays[i]), axis=0)
                for run, n in zip(runs, rows, strict=True)
            ]
        )
        for i in range(len(runs[0].arrays))
    ]
    first = runs[0]
    try:
        outputs = first.servable.call(first.name, first.aliases, columns)
    except tf.errors.OpError:
        return None
    if any(np.ndim(o) == 0 or len(o) != sum(rows) for o in outputs):
        return None
    ends = np.cumsum(rows)
    return [
        [output[end - n : end] for output in outputs]
        for n, end in zip(rows, ends, strict=True)
    ]
