"""Moving averages of the weights: validated and kept instead of the last weights."""

import contextlib

import keras
from keras import ops


@contextlib.contextmanager
def averaged(optimizers):
    """Gives a model the averages of its weights, and at the end its weights back.

    Args:
        optimizers: pairs of a built optimiser and the variables it moves. Where one
            was made without `use_ema` its variables stay as they are.
    """
    optimizers = [(o, moved) for o, moved in optimizers if o.use_ema]
    moved = [variable for _, variables in optimizers for variable in variables]
    weights = [ops.convert_to_numpy(variable) for variable in moved]
    for optimizer, variables in optimizers:
        optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(moved, weights, strict=True):
            variable.assign(value)


class ValidateAverages(keras.callbacks.Callback):
    """Lets validation see the averages of the weights.

    As `keras.callbacks.SwapEMAWeights` does, which swaps by sums and differences and
    so rounds the weights that training goes on with.

    Args:
        optimizers: function of the model that returns what `averaged` takes.
    """

    def __init__(self, optimizers):
        super().__init__()
        self.optimizers = optimizers

    def on_test_begin(self, logs=None):
        self.context = averaged(self.optimizers(self.model))
        self.context.__enter__()

    def on_test_end(self, logs=None):
        self.context.__exit__(None, None, None)
