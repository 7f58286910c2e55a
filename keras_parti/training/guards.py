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
            there is no other. Steps count from 1 at the start of the run, those
            before a resume included.
    """

    def on_train_begin(self, logs=None):
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = self.epoch * (self.params.get("steps") or 0) + batch + 1
        self._check(logs or {}, f"step {step}")

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs or {}, f"the end of epoch {epoch + 1}")
        for variable in self.model.trainable_variables:
            values = ops.convert_to_numpy(variable)
            if not np.isfinite(values).all():
                self._stop(f"the end of epoch {epoch + 1}", variable.path, values)

    def _check(self, logs, when):
        names = sorted(logs, key="loss".__eq__)  # the sum last, else as they stand
        for name in names:
            value = np.asarray(ops.convert_to_numpy(logs[name]))
            if not np.isfinite(value).all():
                self._stop(when, name, value)

    def _stop(self, when, name, values):
        value = values[~np.isfinite(values)].flat[0]
        raise ValueError(
            f"Training stopped at {when}: `{name}` must be finite. Received: {value}. "
            "The last checkpoint is from before; a lower learning rate, a longer "
            "warm-up or a smaller gradient norm may get past this step."
        )
