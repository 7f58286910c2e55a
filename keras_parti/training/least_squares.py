"""The dense layer that is nearest to what it is to give, in closed form."""

import numpy as np
from keras import ops

from keras_parti.compiled import compiled

BATCH = 16  # pictures whose features are held at once: 50 MB of 1,024 patches × 768
# Share of the features' mean square that least squares add to each one's. Less gives
# hardly more (0.1 dB at 1e-7), by weights so large that Adam's first steps destroy it.
RIDGE = 1e-4


def least_squares(pairs, ridge=RIDGE):
    """Returns the kernel and the bias of the dense layer nearest to what it is to give.

    Args:
        pairs: iterable of what it is given, and what it is to give: float NumPy arrays
            `(count, length, inputs)` and `(count, length, outputs)`.
        ridge: float. Share of the inputs' mean square that is added to each one's.

    Returns:
        float64 `(inputs, outputs)` and `(outputs,)`.
    """
    products = moments = 0.0
    for features, wanted in pairs:
        features = features.reshape(-1, features.shape[-1])
        features = np.pad(features, ((0, 0), (0, 1)), constant_values=1.0)  # the bias
        features = features.astype("float64")
        products = products + features.T @ features
        moments = moments + features.T @ wanted.reshape(len(features), -1)
    added = ridge * np.trace(products) / len(products)
    weights = np.linalg.solve(products + added * np.eye(len(products)), moments)
    return weights[:-1], weights[-1]


def compiled_numpy(function, model):
    """Compiles a function of one array whose result is a float32 NumPy array.

    Args:
        function: function of a tensor that returns a tensor.
        model: what has the weights that it reads.
    """
    return compiled(lambda inputs: ops.cast(function(inputs), "float32"), model)


def as_numpy(tensor):
    """Returns a tensor as a float32 NumPy array."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
