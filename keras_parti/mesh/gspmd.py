"""The second road: the same rules for `keras.distribution` on the JAX backend.

There the model is the Keras model, and XLA's partitioner (GSPMD, which trained the real
Parti) splits the computation after the variables' layouts.
"""

import re
from collections.abc import Sequence

import keras

from keras_parti.mesh.layouts import Layout
from keras_parti.mesh.variables import variables_of
from keras_parti.models import PartiConfig


def distribution(
    config: PartiConfig, layout: Layout, devices: Sequence[str] | None = None
) -> keras.distribution.ModelParallel:
    """Returns the `keras.distribution.ModelParallel` that a layout describes.

    Set it with `keras.distribution.set_distribution` before the model is made. Of the
    rules those that split weights and the batch are told; what follows for the
    activations XLA decides. A table of ids that does not divide stays whole.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`.
        devices: list of str, such as `keras.distribution.list_devices()` returns. None:
            the first ones of it.

    Raises:
        ValueError: there are fewer devices than the mesh has.

    References:
        - [Xu et al., 2021](https://arxiv.org/abs/2105.04663)
    """
    found = devices or keras.distribution.list_devices()
    if len(found) < layout.devices:
        raise ValueError(
            f"The mesh {layout.mesh!r} has {layout.devices} devices. "
            f"Received: {len(found)} devices"
        )
    # Keras lays the batch over some axis; where no rule does, over one of size 1.
    axes = {"whole": 1, **layout.axes}
    mesh = keras.distribution.DeviceMesh(
        tuple(axes.values()), list(axes), found[: layout.devices]
    )
    layout_map = keras.distribution.LayoutMap(mesh)
    for pattern, axes in patterns(config, layout).items():
        layout_map[pattern] = axes
    return keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name=layout.splits.get("batch", "whole")
    )


def patterns(config, layout):
    """Returns what `keras.distribution.LayoutMap` is made of.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`.

    Returns:
        Dict from a regular expression of variables' paths to the mesh axes that their
        axes lie over, None where an axis is whole.
    """
    found = {}
    for variable in variables_of(config):
        parts = (
            (variable.rows, variable.columns) if variable.rows else (variable.columns,)
        )
        axes = tuple(_over(layout, part) for part in parts)
        for member in variable.members:
            found[re.sub(r"/\d+/", r"_\\d+/", member) + "$"] = axes
    return found


def _over(layout, part):
    """Returns the mesh axis of a Keras axis that joins some of ours, or None."""
    for axis, size in part.items():
        if layout.pieces(axis) > 1 and size % layout.pieces(axis) == 0:
            return layout.splits[axis]
    return None
