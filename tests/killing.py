"""A run that ends in mid-epoch, as by SIGKILL, in the process of the test."""

import contextlib

import pytest


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it is run."""


@contextlib.contextmanager
def killed_in_epoch(number):
    """Lets the epoch of this number fail before its checkpoint is written."""
    from keras_parti.training import workdir  # needs TensorFlow

    original = workdir.Checkpoints.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        if epoch == number:
            raise Killed
        original(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(workdir.Checkpoints, "on_epoch_end", on_epoch_end)
        with pytest.raises(Killed):
            yield
