"""Stops a run at the first number that is none, and says which it was."""

import keras
import numpy as np
from keras import ops


class StopAtNonFinite(keras.callbacks.Callback):
    """Ends training with an error that names the step and the first bad term.

    Losses and metrics are looked at after each batch, weights after each epoch. Placed
    before a callback that writes checkpoints, it keeps a run from writing weights
    that no later step could mend: the gradients of a batch may be infinite while its
    loss still is not.

    Raises:
        ValueError: a term is NaN or infinite. Of several that became so in one step the
            first part of the loss is named, and the sum of them, `loss`, only where
            there is no other. Steps count from 1 at the start of the run.

    Args:
        done: int. Steps that the run had done before it was resumed.
    """

    def __init__(self, done=0):
        super().__init__()
        self.done = done

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        check_finite(logs or {}, f"step {self.done}")

    def on_epoch_end(self, epoch, logs=None):
        when = f"the end of epoch {epoch + 1}"
        check_finite(logs or {}, when)
        for variable in self.model.trainable_variables:
            _check_values(variable.path, variable, when)


def check_finite(figures, when):
    """Raises `ValueError` at the first figure that is NaN or infinite.

    Args:
        figures: dict of names to numbers; `loss`, the sum of others, is looked at last.
        when: str. Where the run is, such as "step 3".
    """
    for name in sorted(figures, key="loss".__eq__):  # else as they stand
        _check_values(name, figures[name], when)


def _check_values(name, values, when):
    values = np.asarray(ops.convert_to_numpy(values))
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(
            f"Training stopped at {when}: `{name}` must be finite. "
            f"Received: {values[~finite].flat[0]}. "
            "The last checkpoint is from before; a lower learning rate, a longer "
            "warm-up or a smaller gradient norm may get past this step."
        )
