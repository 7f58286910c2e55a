"""A causal decoder, one position at a time, from the weights of existing blocks.

A step computes one position of all rows. What it reads over and over is laid out for
it before the loop: the weights (`pack`), the keys and values of the condition
(`remember`), and a cache of the keys and values of the positions before, which layers
with a convolution-shaped window keep as a ring no longer than that window.

Rows are groups of samples: one group a prompt, its samples next to each other, so that
a condition is encoded and kept once a group. Under guidance as many groups follow that
have no condition.

A model can be decoded that has

- `config.num_codes` and `config.num_tokens`, and `compute_dtype`;
- `decoder_parts()`: a dict of `blocks`, a list of `DecoderBlock` or, without a
  condition to attend to, `EncoderBlock`; `norm`, the normalisation behind them;
  `logits`, a dense layer; `embeddings`, `(at least num_codes, dim)`, and `positions`,
  `(num_tokens, dim)`: the input at position i > 0 is `embeddings[id before] +
  positions[i]`;
- `condition(ids)`: a dict of `begin`, `(groups, dim)`, to which the input at position
  0 adds `positions[0]`; and for blocks with cross-attention `memory`,
  `(groups, memory, dim)`, and `mask`, bool `(groups, memory)`, else both None;
- `no_condition()`: the `ids`, of one group, of a picture of no condition.

References:
    - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.2
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.layers.attention import MASKED
from keras_parti.layers.processors import on_processor
from keras_parti.layers.transformer import LAYER_NORM_EPSILON
from keras_parti.layers.window import window_mask
from keras_parti.layers.window_attention import WindowAttention
from keras_parti.typing import Tensor

__all__ = ["CachedDecoder"]


class CachedDecoder:
    """The decoder of a model, one position at a time.

    Args:
        model: a model as the module's docstring says.
    """

    def __init__(self, model: keras.Model) -> None:
        self._parts = model.decoder_parts()
        self._length = model.config.num_tokens
        self._dtype = model.compute_dtype
        self._heads = self._parts["blocks"][0].num_heads
        # What a position may see of those before it, `[column, how far back]`; blocks
        # of one kind share it.
        self._kinds = [_kind(block.attention) for block in self._parts["blocks"]]
        self._windows = {kind: self._window(*kind) for kind in set(self._kinds)}

    def windows(self) -> list[int]:
        """Returns how many positions each block's cache holds."""
        return [self._windows[kind].shape[1] for kind in self._kinds]

    def pack(self) -> dict[str, Any]:
        """Returns the weights as a step reads them, a nest of tensors.

        Queries, keys and values are one matrix, and each matrix lies with its outputs
        as rows, as few rows of inputs read it fastest. What weights alone decide is
        computed here: the scale and shift of a norm and the scale of queries are part
        of the matrix behind them, and what is added to the residual stream has mean
        zero, so that no norm has to take it away.
        """
        parts, dtype = self._parts, self._dtype
        return {
            "embeddings": ops.cast(parts["embeddings"], dtype),
            "positions": ops.cast(parts["positions"], dtype),
            "blocks": [_pack_block(block, dtype) for block in parts["blocks"]],
            # As in the models, in float32 whatever the blocks are in.
            "logits": _pack("float32", parts["logits"], norm=parts["norm"]),
        }

    def remember(self, condition: dict[str, Any]) -> dict[str, Any]:
        """Returns each block's keys and values of a condition, and their mask.

        Args:
            condition: what the model's `condition` returned.

        Returns:
            A dict of `blocks`, pairs of float `(groups, heads, memory, kv)`, and
            `limit`, float32 `(groups, 1, 1, memory)`, see `_limit`; empty without a
            memory.
        """
        if condition["memory"] is None:
            return {}
        memory, mask = condition["memory"], condition["mask"]
        return {
            "blocks": [
                block.cross_attention.keys_values(memory)
                for block in self._parts["blocks"]
            ],
            "limit": _limit(mask)[:, None, None, :],
        }

    def empty_cache(self, rows: int | Tensor) -> list:
        """Returns room for the keys and values of all blocks, of any finite content.

        Returns:
            A list of pairs of float `(rows * heads * window, kv)`, where `window` is
            how many positions a block keeps.
        """
        kv = self._parts["positions"].shape[-1] // self._heads
        return [
            tuple(
                _empty((rows * self._heads * window, kv), self._dtype, 2 * i + which)
                for which in range(2)
            )
            for i, window in enumerate(self.windows())
        ]

    def fill(
        self,
        condition: dict[str, Any],
        ids: Tensor,
        count: int | Tensor,
        samples: int | Tensor,
    ) -> list:
        """Computes the cache of given ids, all positions in one pass.

        The pass is over all positions, whatever `count` is, so that one graph serves
        all counts.

        Args:
            condition: what the model's `condition` returned, for these groups.
            ids: int32 `(groups, num_tokens)`, of which the first `count` count.
            count: int32 scalar. How many positions the cache is to hold.
            samples: int or int32 scalar. Rows of a group.

        Returns:
            What `empty_cache` returns for `groups * samples` rows, filled.
        """
        begin, memory = condition["begin"], condition["memory"]
        x = ops.take(self._parts["embeddings"], ids[:, :-1], axis=0)
        x = ops.concatenate([begin[:, None], ops.cast(x, self._dtype)], axis=1)
        x = x + ops.cast(self._parts["positions"], self._dtype)
        causal = np.tril(np.ones((self._length, self._length), bool))
        cache = []
        for block, kind in zip(self._parts["blocks"], self._kinds, strict=True):
            h = block.attention_norm(x)
            slots = np.arange(self._windows[kind].shape[1], dtype="int32")
            # The last position before `count` that a ring keeps in each slot.
            kept = count - 1 - (count - 1 - slots) % len(slots)
            kept = ops.maximum(kept, 0)
            own = []
            for x_all in block.attention.keys_values(h):
                x_kept = ops.repeat(ops.take(x_all, kept, axis=2), samples, axis=0)
                own.append(ops.reshape(x_kept, (-1, x_all.shape[-1])))
            cache.append(tuple(own))
            windowed = isinstance(block.attention, WindowAttention)
            mask = {} if windowed else {"attention_mask": causal}
            x = x + block.attention(h, **mask)
            if memory is not None:
                mask = condition["mask"][:, None, None, :]
                h = block.cross_attention_norm(x)
                x = x + block.cross_attention(h, memory, attention_mask=mask)
            x = x + block.feed_forward(block.feed_forward_norm(x))
        return cache

    def step(
        self,
        weights: dict[str, Any],
        memories: dict[str, Any] | None,
        inputs: Tensor,
        position: int | Tensor,
        cache: list,
    ) -> tuple[Tensor, list]:
        """Computes the logits of one position.

        Args:
            weights: what `pack` returned.
            memories: what `remember` returned, or None without a condition.
            inputs: float `(rows, dim)`. The embeddings of the ids before, or `begin`
                of each row's group.
            position: int32 scalar in `[0, num_tokens)`.
            cache: what `empty_cache`, `fill` or the step before returned. It is used
                up: on TensorFlow the new position is written into it.

        Returns:
            float32 `(rows, num_codes)`, and the cache with this position in it.
        """
        x = _centred(inputs + ops.take(weights["positions"], position, axis=0))
        rows, heads = x.shape[0], ops.shape(x)[0] * self._heads
        axis = feature_axis(rows, self._dtype)
        views = {kind: self._view(kind, position, heads) for kind in self._windows}
        new_cache = []
        x = turned(x, -1, axis)
        for i, (block, own) in enumerate(zip(weights["blocks"], cache, strict=True)):
            slots, limit = views[self._kinds[i]]
            kv = own[0].shape[-1]
            h = turned(linear(_normalize(x, axis), block["attention"], axis), axis, -1)
            # Each (rows · heads, kv).
            queries, *new = (
                ops.reshape(part, (-1, kv)) for part in ops.split(h, 3, axis=-1)
            )
            own = tuple(
                _write(old, slots, part) for old, part in zip(own, new, strict=True)
            )
            new_cache.append(own)
            keys, values = (ops.reshape(part, (heads, -1, kv)) for part in own)
            y = _attend(queries[:, None], keys, values, limit)
            y = turned(ops.reshape(y, ops.shape(inputs)), -1, axis)
            x = x + linear(y, block["attention_output"], axis)
            if memories:
                y = linear(_normalize(x, axis), block["cross_attention"], axis)
                keys, values = memories["blocks"][i]
                y = self._look(turned(y, axis, -1), keys, values, memories["limit"])
                y = turned(y, -1, axis)
                x = x + linear(y, block["cross_attention_output"], axis)
            y = linear(_normalize(x, axis), block["wide"], axis)
            activate = self._parts["blocks"][i].feed_forward.activate
            x = x + linear(activate(y), block["narrow"], axis)
        x = _normalize(ops.cast(x, "float32"), axis)
        last = feature_axis(rows, "float32")
        logits = linear(turned(x, axis, last), weights["logits"], last)
        return turned(logits, last, -1), new_cache

    def _look(self, queries, keys, values, limit):
        """Cross-attention of rows, float `(rows, dim)`, to what their group keeps."""
        groups, heads, _, kv = ops.shape(keys)
        x = ops.reshape(queries, (groups, -1, heads, kv))
        x = _attend(ops.transpose(x, (0, 2, 1, 3)), keys, values, limit)
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), ops.shape(queries))

    def _view(self, kind, position, heads):
        """Where a position is written in the caches of a kind, and what it may see.

        Returns:
            int32 `(heads,)`, rows of a cache; and float32 `(window,)`, see `_limit`.
        """
        window = self._windows[kind]
        width, length = window.shape
        # In a ring, the slot of a position is its remainder, and the position that a
        # slot holds is so many before this one:
        back = (position - np.arange(length, dtype="int32")) % length
        column = ops.take(ops.convert_to_tensor(window), position % width, axis=0)
        seen = ops.logical_and(ops.take(column, back), back <= position)
        slots = ops.arange(heads, dtype="int32") * length + position % length
        return slots, _limit(seen)

    def _window(self, *kind):
        if kind == ALL:
            return np.ones((1, self._length), bool)
        # A picture of few rows ends before the window does.
        return window_mask(*kind)[:, : self._length]


# From so many rows on, where their number is known, vectors are columns, and kernels
# stand on the left of their products: of 32 rows those of a layer, 512 wide, take
# 1.5 ms in place of 2.6. Of two rows they would take 1.1 ms in place of 0.8.
MANY_ROWS = 16

# The kind of a block that sees all positions before it; others have the arguments of
# `window_mask`.
ALL = ()


def _kind(attention):
    if isinstance(attention, WindowAttention):
        return attention.kernel_size, attention.width, attention.wraparound
    return ALL


def _pack_block(block, dtype):
    attention, feed_forward = block.attention, block.feed_forward
    projections = attention.query, attention.key, attention.value
    scale = (block.num_heads / attention.query.kernel.shape[-1]) ** 0.5
    packed = {
        "attention": _pack(
            dtype, *projections, norm=block.attention_norm, scales=(scale, 1.0, 1.0)
        ),
        "attention_output": _pack(dtype, attention.output_projection, centred=True),
        "wide": _pack(dtype, feed_forward.wide, norm=block.feed_forward_norm),
        "narrow": _pack(dtype, feed_forward.narrow, centred=True),
    }
    if hasattr(block, "cross_attention"):
        cross, norm = block.cross_attention, block.cross_attention_norm
        packed |= {
            "cross_attention": _pack(dtype, cross.query, norm=norm, scales=(scale,)),
            "cross_attention_output": _pack(
                dtype, cross.output_projection, centred=True
            ),
        }
    return packed


def _pack(dtype, *dense, norm=None, scales=(1.0,), centred=False):
    """Returns dense layers as one: kernel `(outputs, inputs)` and bias.

    Args:
        dtype: str. Of the result.
        *dense: `keras.layers.Dense` that read the same inputs.
        norm: the normalisation before them, of which `_normalize` does the rest.
        scales: floats, one a layer, by which its outputs are multiplied.
        centred: bool. Whether the mean of the outputs is taken away.
    """
    pairs = [
        (ops.cast(d.kernel, "float32"), ops.cast(d.bias, "float32")) for d in dense
    ]
    if norm is not None:
        gamma, beta = norm.gamma, norm.beta
        pairs = [(gamma[:, None] * k, b + ops.matmul(beta, k)) for k, b in pairs]
    kernel, bias = (
        ops.concatenate([s * x for x, s in zip(xs, scales, strict=True)], axis=-1)
        for xs in zip(*pairs, strict=True)
    )
    if centred:
        kernel, bias = _centred(kernel), _centred(bias)
    return ops.transpose(ops.cast(kernel, dtype)), ops.cast(bias, dtype)


def feature_axis(rows, dtype):
    """Returns the axis of features by which products of so many rows are fastest."""
    return 0 if rows is not None and rows >= MANY_ROWS and dtype == "float32" else -1


def linear(x, packed, axis):
    """Returns a packed dense layer of vectors that lie along an axis, 0 or −1."""
    kernel, bias = packed
    if axis == 0:
        return ops.matmul(kernel, x) + bias[:, None]
    # TensorFlow and XLA fold the transposition into the product.
    return ops.matmul(x, ops.transpose(kernel)) + bias


def turned(x, axis, wanted):
    """Returns a matrix of vectors along an axis with its vectors along another."""
    return x if axis == wanted else ops.transpose(x)


def _centred(x):
    return x - ops.mean(x, axis=-1, keepdims=True)


def _normalize(inputs, axis):
    """Layer normalisation of vectors of mean zero, without scale and shift."""
    x = ops.cast(inputs, "float32")
    variance = ops.mean(ops.square(x), axis=axis, keepdims=True)
    return ops.cast(x * ops.rsqrt(variance + LAYER_NORM_EPSILON), inputs.dtype)


def _limit(seen):
    """Returns what no logit of attention may exceed, float32: `MASKED` where unseen.

    Computed once a step for all blocks of a kind, which take the minimum. It is not
    added: where one product alone takes a bias, as in a model of one layer, TensorFlow
    2.21 joins the two and the whole loop returns empty tensors.
    """
    return ops.where(seen, np.float32(np.inf), np.float32(MASKED))


def _attend(queries, keys, values, limit):
    """Dot-product attention of scaled queries; all `(..., positions, kv)`."""
    logits = ops.cast(_product(queries, keys, transposed=True), "float32")
    weights = ops.softmax(ops.minimum(logits, limit), axis=-1)
    return _product(ops.cast(weights, values.dtype), values)


def _product(x, y, transposed=False):
    """Returns the matrix products of a batch, `y` transposed or as it is."""
    if x.shape[-2] == 1 and x.dtype == "float32" and on_processor():
        import tensorflow as tf

        # Of single vectors TensorFlow's own kernel is faster than oneDNN's, which has
        # no version 3: the 32 products of a step of two rows take 2.1 ms, not 3.2.
        return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=x.dtype, adj_y=transposed)
    return ops.matmul(x, ops.swapaxes(y, -1, -2) if transposed else y)


def _empty(shape, dtype, number):
    """A tensor to write into: on TensorFlow one that no other call shares."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Equal tensors would be one, once the graph is optimised, and one of known
        # shape a constant of all runs.
        if isinstance(shape[0], int):
            return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=True)
        # `Empty` counts as an effect: what has it is not run beside another.
        return tf.fill(shape, tf.cast(number, dtype))
    return ops.zeros(shape, dtype)


def _write(cache, slots, new):
    """Writes rows of keys or values into rows of a cache."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # `scatter_update` copies the cache, which XLA alone avoids: of eight blocks and
        # 32 rows a third of the time of a step.
        return tf.raw_ops.InplaceUpdate(x=cache, i=slots, v=new)
    return ops.scatter_update(cache, slots[:, None], new)
