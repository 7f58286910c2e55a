"""The table of Parti's variables by named axes: what a mesh keeps, and how it is split.

All weights of one shape in a stack of layers are one variable, with `stack` as its
first axis: a mesh of 1024 devices has 1024 slices of each variable, and a graph with
millions of slices takes hours to build.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Array:
    """Something a mesh keeps between steps."""

    name: str
    axes: tuple  # of str; the first is `stack`
    shape: tuple  # of int, whole and without padding
    dtype: str  # of its elements


@dataclasses.dataclass(frozen=True)
class Variable:
    """Weights of a Parti that have one shape, on top of each other.

    Attributes:
        name: str.
        rows: dict from axis to size: what is the first axis of the Keras variables.
            Vectors have none.
        columns: dict from axis to size: what is the last axis of the Keras variables.
        members: tuple of str. Of each of them, attributes and numbers of layers that
            lead to the Keras variable, joined by "/".
    """

    name: str
    rows: dict
    columns: dict
    members: tuple

    @property
    def weight(self):
        """The weights themselves, an `Array`."""
        return self._array("weight", self.rows | self.columns)

    @property
    def member_size(self):
        """Number of weights of one member."""
        return math.prod((self.rows | self.columns).values())

    @property
    def keras_shape(self):
        """Shape of the Keras variable of one member."""
        parts = (self.rows, self.columns) if self.rows else (self.columns,)
        return tuple(math.prod(part.values()) for part in parts)

    def slots(self):
        """What Adafactor keeps: see `keras_parti.optimizers.Adafactor`.

        Returns:
            Dict of `momentum`, `scale`, and `moment` of vectors or `row_moment` and
            `column_moment` of matrices, to `Array`.
        """
        axes = self.rows | self.columns
        kept = {"momentum": axes, "scale": self.columns if self.rows else {}}
        if self.rows:
            kept |= {"row_moment": self.rows, "column_moment": self.columns}
        else:
            kept["moment"] = axes
        return {name: self._array(name, axes) for name, axes in kept.items()}

    def _array(self, name, axes):
        axes = {"stack": len(self.members)} | axes
        dtype = "int8" if name == "momentum" else "float32"
        return Array(f"{self.name}/{name}", tuple(axes), tuple(axes.values()), dtype)


def variables_of(config):
    """Returns the variables of a Parti.

    Args:
        config: `PartiConfig`.

    Returns:
        List of `Variable`.
    """
    embed, width = {"embed": config.dim}, config.width
    places = [("positions", {"length": config.num_tokens})]
    if config.image_positions == "factorised":
        places = [
            ("row_vectors", {"height": width}),
            ("column_vectors", {"width": width}),
        ]
    vocab = {"vocab": config.num_codes}
    ends = [
        ("text_embedding/embeddings", {"vocab": config.text_vocab_size}, embed),
        ("text_positions/positions", {"memory": config.text_length}, embed),
        *_norm("encoder_norm", embed),
        ("image_embedding/embeddings", {"vocab": config.num_codes + 1}, embed),
        *((f"image_positions/{name}", rows, embed) for name, rows in places),
        *_norm("decoder_norm", embed),
        ("logits/kernel", embed, vocab),
        ("logits/bias", {}, vocab),
    ]
    if config.tie_embeddings:
        ends = [end for end in ends if end[0] != "logits/kernel"]
    attentions = {"encoder": ["attention"], "decoder": ["attention", "cross_attention"]}
    layers = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    found = _grouped("", ends)
    for stack, count in layers.items():
        members = [
            (f"{stack}/{i}/{name}", rows, columns)
            for i in range(count)
            for name, rows, columns in _block(config, attentions[stack])
        ]
        found += _grouped(f"{stack}_", members)
    return found


def arrays_of(config):
    """Returns every `Array` of a Parti in training: weights and Adafactor's state."""
    return [
        array
        for variable in variables_of(config)
        for array in (variable.weight, *variable.slots().values())
    ]


def _grouped(prefix, members):
    """Joins (path, rows, columns) of equal rows and columns to variables."""
    groups = {}
    for path, rows, columns in members:
        key = (*rows.items(), "to", *columns.items())
        groups.setdefault(key, (rows, columns, []))[2].append(path)
    found = []
    for rows, columns, paths in groups.values():
        name = prefix + "_to_".join("_".join(part) for part in (rows, columns) if part)
        if len(paths) == 1:
            name = paths[0].replace("/", "_")
        found.append(Variable(name, rows, columns, tuple(paths)))
    return found


def _block(config, attentions):
    embed, mlp = {"embed": config.dim}, {"mlp": config.mlp_dim}
    heads = {"heads": config.heads, "kv": config.dim // config.heads}
    for attention in attentions:
        yield from _norm(f"{attention}_norm", embed)
        for name in ("query", "key", "value"):
            yield from _dense(f"{attention}/{name}", embed, heads)
        yield from _dense(f"{attention}/output_projection", heads, embed)
    yield from _norm("feed_forward_norm", embed)
    yield from _dense("feed_forward/wide", embed, mlp)
    yield from _dense("feed_forward/narrow", mlp, embed)


def _norm(name, embed):
    return [(f"{name}/gamma", {}, embed), (f"{name}/beta", {}, embed)]


def _dense(name, rows, columns):
    return [(f"{name}/kernel", rows, columns), (f"{name}/bias", {}, columns)]
