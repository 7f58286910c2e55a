"""What training a Parti on a mesh takes: memory, operations, communication, days.

Nothing is built or allocated: all of it follows from the tables of variables and of
matrix products, from the layout, and from what vendors publish of their devices.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

from keras_parti.mesh.accelerators import ACCELERATORS
from keras_parti.mesh.layouts import PRESETS, Layout, axis_sizes
from keras_parti.mesh.operations import (
    attention_block,
    floats,
    keys_seen,
    products_of,
)
from keras_parti.mesh.variables import variables_of

if TYPE_CHECKING:
    from keras_parti.models import PartiConfig


__all__ = ["Plan", "plan", "search"]

STEPS = 450_000  # of Parti's training (section 3)
FLOAT = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Plan:
    """The figures of one device and one step.

    Attributes:
        layout: `Layout`.
        rematerialise: bool. What `activations` and `flops` are counted for.
        parameters: float. Weights that the device has, padding included.
        weights: bytes of them.
        optimizer: bytes of Adafactor's state.
        gradients: bytes of the gradients, of which all are there when they are clipped.
        activations: bytes that the backward pass needs kept, at its begin.
        other_activations: the same with the other choice of rematerialisation.
        peak: bytes, of all these and what is in work.
        memory: bytes that the device has.
        flops: floating-point operations.
        sent: dict from axis of the mesh to bytes that the device sends over it.
        compute: seconds of `flops` at the peak rate.
        communication: dict from axis of the mesh to seconds.
    """

    layout: Layout
    rematerialise: bool
    parameters: float
    weights: float
    optimizer: float
    gradients: float
    activations: float
    other_activations: float
    peak: float
    memory: float
    flops: float
    sent: dict
    compute: float
    communication: dict

    @property
    def fits(self):
        """Whether the peak is not above what the device has."""
        return self.peak <= self.memory

    @property
    def fastest(self):
        """Seconds a step by the roofline: all communication behind computation."""
        return max(self.compute, sum(self.communication.values()))

    @property
    def slowest(self):
        """Seconds a step where nothing overlaps, still at peak rates."""
        return self.compute + sum(self.communication.values())

    @property
    def days(self):
        """Days of the published number of steps, at `fastest`."""
        return self.fastest * STEPS / 86_400


def plan(
    config: "PartiConfig",
    layout: Layout,
    batch_size: int,
    device: str = "tpu_v4",
    dtype: str = "mixed_bfloat16",
    rematerialise: bool = True,
) -> Plan:
    """Plans a run of Adafactor on a mesh.

    Args:
        config: `PartiConfig`.
        layout: `Layout`.
        batch_size: int. Pictures of a step, over all devices.
        device: str. One of `ACCELERATORS`.
        dtype: str, "mixed_bfloat16" or "float32".
        rematerialise: bool.

    Raises:
        ValueError: the layout does not fit the config or the batch, or `device` is not
            known.

    Example:
        >>> from keras_parti.models import Parti
        >>> config = Parti.preset_config("parti_3b")
        >>> found = plan(config, Layout("data:128;model:4", "two_d"), batch_size=8192)
        >>> f"{found.peak / 2**30:.0f} of {found.memory / 2**30:.0f} GiB"
        '26 of 32 GiB'
    """
    if device not in ACCELERATORS:
        raise ValueError(
            f"`device` must be one of {', '.join(ACCELERATORS)}. Received: {device!r}"
        )
    layout.check(axis_sizes(config, batch_size))
    accelerator = ACCELERATORS[device]
    size = FLOAT if dtype == "float32" else 2
    variables = variables_of(config)
    weights = sum(_bytes(layout, v.weight) for v in variables)
    optimizer = sum(_bytes(layout, s) for v in variables for s in v.slots().values())
    kept = {
        choice: _activations(config, layout, batch_size, size, choice)
        for choice in (True, False)
    }
    head = _head(config, layout, batch_size)
    # At the end of the backward pass all gradients are there, those of the largest
    # variable as its members and as their stack, and Adafactor makes its update of
    # them: square, update and momentum.
    largest = max(_bytes(layout, v.weight) for v in variables)
    activations = kept[rematerialise] + head
    if rematerialise:
        activations += _in_work(config, layout, batch_size, size)
    working = max(activations, weights + 4 * largest)
    flops = _flops(config, layout, batch_size, rematerialise)
    sent = _sent(config, layout, batch_size, size, rematerialise)
    return Plan(
        layout=layout,
        rematerialise=rematerialise,
        parameters=weights / FLOAT,
        weights=weights,
        optimizer=optimizer,
        gradients=weights,
        activations=kept[rematerialise],
        other_activations=kept[not rematerialise],
        peak=weights + optimizer + working,
        memory=accelerator.memory,
        flops=flops,
        sent=sent,
        compute=flops / accelerator.flops,
        communication={axis: n / accelerator.link for axis, n in sent.items()},
    )


def search(
    config: "PartiConfig",
    devices: int,
    batch_size: int,
    device: str = "tpu_v4",
    dtype: str = "mixed_bfloat16",
) -> list[Plan]:
    """Finds the layouts that fit, the fastest first.

    Tried are all meshes of a data axis and a model axis, the named layouts, and `two_d`
    with the places of sequences split over the model axis between the layers; each with
    and without rematerialisation.

    Args:
        config: `PartiConfig`.
        devices: int. How many there are.
        batch_size: int. Pictures of a step.
        device: str. One of `ACCELERATORS`.
        dtype: str, as in `plan`.

    Returns:
        List of `Plan`.
    """
    rules = {**PRESETS, "two_d;length:model;memory:model": PRESETS["two_d"]}
    found = []
    for model in (n for n in range(1, devices + 1) if devices % n == 0):
        for name, rule in rules.items():
            over = {"data": devices // model, "model": model}
            if any((size > 1) != (f":{axis}" in rule) for axis, size in over.items()):
                continue
            mesh = ";".join(f"{axis}:{n}" for axis, n in over.items() if n > 1)
            layout = Layout(mesh, name)
            for rematerialise in (False, True):
                options = (batch_size, device, dtype, rematerialise)
                try:
                    found.append(plan(config, layout, *options))
                except ValueError:  # an axis that does not divide
                    continue
    fitting = [found_plan for found_plan in found if found_plan.fits]
    return sorted(fitting, key=lambda p: (p.slowest, p.peak))


def _bytes(layout, array):
    size = 1 if array.dtype == "int8" else FLOAT
    return math.prod(layout.slice_shape(array.axes, array.shape)) * size


def _flops(config, layout, batch_size, rematerialise):
    """Forward, twice as much backward, and the blocks once more where recomputed."""
    total = 0
    for product in products_of(config, batch_size):
        # The tables of ids and the logits are outside of the blocks.
        again = rematerialise and "vocab" not in product.sizes
        once = 2 * floats(layout, product.sizes) * product.count
        total += once * (4 if again else 3)
    return total


def _sent(config, layout, batch_size, size, rematerialise):
    """Bytes that all-reduces send over each axis, around a ring."""
    sent = dict.fromkeys(layout.axes, 0.0)

    def reduce(product, axes, element):
        for axis in product.sizes:
            pieces = layout.pieces(axis)
            if axis not in axes and pieces > 1:
                result = floats(layout, {a: product.sizes[a] for a in axes})
                # Mesh-TensorFlow sums bfloat16 over more than 8 devices in float32.
                element = FLOAT if pieces > 8 else element
                share = 2 * (pieces - 1) / pieces
                over = layout.splits[axis]
                sent[over] += share * result * element * product.count

    for product in products_of(config, batch_size):
        inside = "vocab" not in product.sizes
        reduce(product, product.result, size)
        # Computed again: the attentions' outputs, but not the block's last.
        if rematerialise and inside and "heads" in product.sizes:
            reduce(product, product.result, size)
        for axes, is_sent in product.passes:
            # Nothing flows back into ids.
            if is_sent and not ("vocab" in axes and "batch" in axes):
                reduce(product, axes, size)
    for name, places, layers, sublayers in (
        ("memory", config.text_length, config.encoder_layers, 2),
        ("length", config.num_tokens, config.decoder_layers, 3),
    ):
        # Places that are split between the layers are gathered before each sublayer
        # and, of its gradient, behind it. Mesh-TensorFlow gathers by a sum.
        pieces = layout.pieces(name)
        if pieces > 1:
            x = {"batch": batch_size, "places": places, "embed": config.dim}
            share = 2 * (pieces - 1) / pieces * (FLOAT if pieces > 8 else size)
            gathered = 1 + layers * sublayers * (3 if rematerialise else 2)
            sent[layout.splits[name]] += share * floats(layout, x) * gathered
    return sent


def _activations(config, layout, batch_size, size, rematerialise):
    """Bytes that the backward pass finds kept, or of one block and all inputs."""
    text = {"batch": batch_size, "memory": config.text_length, "embed": config.dim}
    image = {"batch": batch_size, "length": config.num_tokens, "embed": config.dim}
    text_inputs, image_inputs = (floats(layout, x) * size for x in (text, image))
    encoder = _attention(config, layout, text, config.text_length, 1, size)
    encoder += _feed_forward(config, layout, text, size)
    blocks = [encoder] * config.encoder_layers
    inputs = [text_inputs] * (config.encoder_layers + 1)
    for layer in range(config.decoder_layers):
        kernel = config.kernel_of(layer)
        keys = keys_seen(config, kernel)
        slabs = (
            1
            if kernel is None
            else keys / attention_block(config.width, config.num_tokens)
        )
        block = _attention(config, layout, image, keys, slabs, size)
        block += _attention(config, layout, image, config.text_length, 0, size)
        heads = {"batch": batch_size, "heads": config.heads}
        block += 2 * size * floats(layout, heads) * config.text_length * _kv(config)
        blocks.append(block + _feed_forward(config, layout, image, size))
        inputs.append(image_inputs)
    return sum(inputs) + max(blocks) if rematerialise else sum(blocks)


def _in_work(config, layout, batch_size, size):
    """Bytes that a block's backward pass has beside what it kept, computed again.

    Before the activation of the feed-forward layer, and its gradient; with dropout bits
    and noise of the largest tensor that is dropped.
    """
    batch, length = {"batch": batch_size}, config.num_tokens
    wide = floats(layout, batch | {"mlp": config.mlp_dim}) * length
    kernels = [config.kernel_of(i) for i in range(config.decoder_layers)]
    keys = max(keys_seen(config, kernel) for kernel in kernels)
    weights = floats(layout, batch | {"heads": config.heads}) * length * keys
    rates = config.activation_dropout_rate, config.attention_dropout_rate
    dropped = [
        count
        for rate, count in zip(rates, (wide, weights), strict=True)
        if (config.dropout_rate if rate is None else rate)
    ]
    return 2 * size * wide + 2 * FLOAT * max(dropped, default=0)


def _kv(config):
    return config.dim // config.heads


def _norm(layout, x, size):
    # Centred and normalised in float32, and what comes out.
    return floats(layout, x) * (2 * FLOAT + size)


def _attention(config, layout, x, keys, slabs, size):
    """What an attention keeps: `slabs` times the keys and values of its places."""
    places = math.prod(x.values()) // x["batch"] // x["embed"]
    heads = floats(layout, {"batch": x["batch"], "heads": config.heads}) * places
    rate = config.attention_dropout_rate
    dropped = config.dropout_rate if rate is None else rate
    # Queries and what the heads return; keys and values.
    kept = heads * _kv(config) * (2 + 2 * slabs) * size
    # The weights in float32 and as they are multiplied; mask and product of dropout.
    copies = (0 if size == FLOAT else size) + (2 * size if dropped else 0)
    kept += heads * keys * (FLOAT + copies)
    dropout = floats(layout, x) * size if config.dropout_rate else 0
    return kept + _norm(layout, x, size) + dropout


def _feed_forward(config, layout, x, size):
    places = math.prod(x.values()) // x["batch"] // x["embed"]
    wide = floats(layout, {"batch": x["batch"], "mlp": config.mlp_dim}) * places
    rate = config.activation_dropout_rate
    dropped = config.dropout_rate if rate is None else rate
    dropout = floats(layout, x) * size if config.dropout_rate else 0
    kept = wide * size * (4 if dropped else 2)
    return kept + _norm(layout, x, size) + dropout


def _head(config, layout, batch_size):
    """The logits: shifted, their exponentials, the ids' places, and two gradients."""
    logits = {"batch": batch_size, "vocab": config.num_codes + 1}
    return 5 * FLOAT * floats(layout, logits) * config.num_tokens
