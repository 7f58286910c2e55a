"""Weights between a Keras Parti and the stacked arrays of a mesh, both ways."""

import keras
import numpy as np

from keras_parti.mesh.variables import variables_of
from keras_parti.models import Parti


def from_keras(model: Parti) -> dict[str, np.ndarray]:
    """Returns a Keras model's weights as a mesh takes them.

    Args:
        model: `Parti`.

    Returns:
        Dict from the name of an `Array` to a float32 array of its shape.
    """
    arrays = {}
    for variable in variables_of(model.config):
        values = [
            keras.ops.convert_to_numpy(_keras_variable(model, path))
            for path in variable.members
        ]
        weight = variable.weight
        arrays[weight.name] = np.stack(values).reshape(weight.shape).astype("float32")
    return arrays


def to_keras(arrays: dict[str, np.ndarray], model: Parti) -> None:
    """Gives a Keras model the weights of a mesh.

    Args:
        arrays: dict from names to arrays, as `from_keras` returns it; more are ignored.
        model: `Parti` of the same config.

    Raises:
        ValueError: an array is missing, or of another shape than the model's.
    """
    for variable in variables_of(model.config):
        weight = variable.weight
        found = np.shape(arrays[weight.name]) if weight.name in arrays else None
        if found != weight.shape:
            raise ValueError(
                f"`{weight.name}` must be an array of shape {weight.shape}. "
                f"Received: {found}"
            )
        values = np.reshape(arrays[weight.name], (-1, *variable.keras_shape))
        for path, value in zip(variable.members, values, strict=True):
            _keras_variable(model, path).assign(value)


def _keras_variable(model, path):
    found = model
    for part in path.split("/"):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    return found
