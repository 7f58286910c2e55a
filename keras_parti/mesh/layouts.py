"""Layouts: over which axis of a mesh of devices each axis of a tensor is split.

Both are written in Mesh-TensorFlow's notation: a mesh as `"data:8;model:4"`, rules as
`"batch:data;heads:model"`. A layout changes where things are computed, never what.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

# The axes of every weight and activation of Parti. `length` are the places of an image,
# `memory` those of a text, `kv` is the width of a head, `vocab` ids of text or image.
AXES = ("batch", "length", "memory", "embed", "heads", "kv", "mlp", "vocab")

# Axes that meet in one tensor, and so cannot be split over the same mesh axis. Queries
# and feed-forward layers have all places of a sequence on each device.
TENSORS = (
    ("batch", "length", "embed"),
    ("batch", "memory", "embed"),
    ("batch", "heads", "kv"),
    ("batch", "mlp"),
    ("batch", "vocab"),
    ("embed", "heads", "kv"),
    ("embed", "mlp"),
    ("embed", "vocab"),
    ("embed", "length"),
    ("embed", "memory"),
)

# `model_parallel` and `two_d` split what Parti's 3B model splits (section 3): heads
# and the width of feed-forward layers. The paper also splits the activations between
# the layers; `length:model;memory:model` beside these rules does.
PRESETS = {
    "data_parallel": "batch:data",
    "model_parallel": "heads:model;mlp:model;vocab:model",
    "two_d": "batch:data;heads:model;mlp:model;vocab:model",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and rules that lay axes of tensors over its axes.

    Args:
        mesh: str, such as `"data:8;model:4"`: names and sizes of the mesh's axes. The
            empty string is one device.
        rules: str, such as `"batch:data;heads:model"`, where a name among `PRESETS`
            stands for its rules. Axes without a rule are whole on every device.

    Raises:
        ValueError: a part that cannot be read, an unknown axis, one that has two rules,
            or two axes of one tensor on the same axis of the mesh.

    Example:
        >>> layout = Layout("data:2;model:4", "two_d")
        >>> layout.devices, layout.pieces("heads"), layout.pieces("embed")
        (8, 4, 1)
        >>> layout.slice_shape(("embed", "heads", "kv"), (64, 8, 8))
        (64, 2, 8)

    References:
        - [Shazeer et al., 2018](https://arxiv.org/abs/1811.02084), section 3
    """

    mesh: str = ""
    rules: str = ""

    def __post_init__(self):
        sizes = self.axes
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(
                    f"Axis `{name}` of a mesh must have a positive size. "
                    f"Received: mesh={self.mesh!r}"
                )
        for axis, over in self.splits.items():
            if axis not in AXES:
                raise ValueError(
                    f"Layout rules split {', '.join(AXES)}. "
                    f"Received: `{axis}` in {self.rules!r}"
                )
            if over not in sizes:
                raise ValueError(
                    f"`{axis}` cannot be split over `{over}`: the mesh {self.mesh!r} "
                    f"has the axes {', '.join(sizes) or 'none'}. "
                    f"Received: layout={self.rules!r}"
                )
        for tensor in TENSORS:
            used = {}
            for axis in tensor:
                over = self.splits.get(axis)
                if over in used:
                    raise ValueError(
                        f"`{used[over]}` and `{axis}` cannot both be split over "
                        f"`{over}`: a tensor has both. Received: layout={self.rules!r}"
                    )
                if over is not None:
                    used[over] = axis

    @functools.cached_property
    def axes(self):
        """Sizes of the mesh's axes by name, in their order."""
        return {
            name: _integer(size, self.mesh)
            for name, size in _pairs(self.mesh, "mesh", "data:8;model:4").items()
        }

    @functools.cached_property
    def splits(self):
        """The mesh axis that each split axis of a tensor lies over."""
        text = ";".join(PRESETS.get(part, part) for part in self.rules.split(";"))
        return _pairs(text, "layout", "batch:data;heads:model", PRESETS)

    @property
    def devices(self):
        """Number of devices of the mesh."""
        return math.prod(self.axes.values())

    def pieces(self, axis: str) -> int:
        """Returns the number of pieces that an axis of a tensor is split into."""
        return self.axes.get(self.splits.get(axis), 1)

    def padded(self, axis: str, size: int) -> int:
        """Returns the least size, not below `size`, that an axis can be split at."""
        return -(-size // self.pieces(axis)) * self.pieces(axis)

    def slice_shape(
        self, axes: tuple[str, ...], shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Returns the shape of one device's part of a tensor.

        Args:
            axes: tuple of str, the names of the tensor's axes. One that is no axis of a
                layout, such as `layers`, is whole.
            shape: tuple of int, the whole tensor's. `vocab` is padded where needed.
        """
        return tuple(
            self.padded(axis, size) // self.pieces(axis)
            for axis, size in zip(axes, shape, strict=True)
        )

    def between(self, devices: Sequence[int]) -> str:
        """Returns the axes of the mesh along which devices differ, joined by ",".

        Args:
            devices: list of int, their numbers in the mesh's order.
        """
        names, different = [], list(devices)
        for name, size in reversed(self.axes.items()):
            if len({device % size for device in different}) > 1:
                names.append(name)
            different = [device // size for device in different]
        return ",".join(reversed(names))

    def check(self, sizes: dict[str, int]) -> None:
        """Raises `ValueError` where an axis does not split evenly.

        Args:
            sizes: dict from an axis to its size. `vocab` is left out of it: tables of
                ids are padded instead.
        """
        for axis, size in sizes.items():
            pieces, over = self.pieces(axis), self.splits.get(axis)
            if size % pieces:
                fitting = [str(n) for n in range(1, size + 1) if size % n == 0]
                if len(fitting) > 12:
                    fitting = [*fitting[:11], "...", fitting[-1]]
                raise ValueError(
                    f"`{axis}` of {size} does not split into {pieces} equal pieces "
                    f"over `{over}`. Sizes of `{over}` that fit: {', '.join(fitting)}. "
                    f"Received: mesh={self.mesh!r}, layout={self.rules!r}"
                )


def axis_sizes(config, batch_size):
    """Returns the sizes that a layout of a Parti has to fit, but for `vocab`.

    Args:
        config: `PartiConfig`.
        batch_size: int. Pictures of a step, over all devices.
    """
    return {
        "batch": batch_size,
        "length": config.num_tokens,
        "memory": config.text_length,
        "embed": config.dim,
        "heads": config.heads,
        "kv": config.dim // config.heads,
        "mlp": config.mlp_dim,
    }


def _pairs(text, name, example, presets=()):
    """Reads "a:b;c:d"."""
    found = {}
    for part in filter(None, text.split(";")):
        key, colon, value = (word.strip() for word in part.partition(":"))
        if not (key and colon and value) or ":" in value:
            known = f", or one of {', '.join(presets)}" if presets else ""
            raise ValueError(
                f"`{name}` must be pairs such as {example!r}{known}. "
                f"Received: {name}={text!r}"
            )
        if key in found:
            raise ValueError(
                f"`{name}` must name each axis once. "
                f"Received: `{key}` twice in {text!r}"
            )
        found[key] = value
    return found


def _integer(text, mesh):
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            "Sizes of a mesh's axes must be integers, such as 'data:8;model:4'. "
            f"Received: mesh={mesh!r}"
        ) from None
