"""Multi-head attention over a whole sequence."""

from typing import Any

import keras
from keras import ops

from keras_parti.layers.attention_parts import attend_in_parts, in_parts
from keras_parti.typing import Tensor

# What stands in the logits of a key that may not be seen; its weight is 0 in float32.
MASKED = -1e9


@keras.saving.register_keras_serializable("keras_parti")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention with `num_heads` heads.

    A sampler, which asks one position after the other, keeps what `keys_values`
    returns; see `keras_parti.decoding`.

    Args:
        num_heads: int. Number of heads; divides the width of the inputs.
        dropout_rate: float in `[0, 1)`. Share of attention weights dropped in
            training.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, length, embed)`. The queries.
        memory: float `(batch, memory, embed)`, or None for self-attention.
        attention_mask: bool, broadcast to `(batch, heads, length, memory)`; True
            where a query may look. None: everywhere. No row may be False everywhere.

    Returns:
        float `(batch, length, embed)`.

    Raises:
        ValueError: where `num_heads` does not divide the width.

    Example:
        >>> attention = MultiHeadAttention(num_heads=2)
        >>> pictures, words = ops.ones((3, 7, 6)), ops.ones((3, 5, 6))
        >>> tuple(attention(pictures, words).shape)
        (3, 7, 6)

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2
    """

    # Zeros: a block begins as the identity, however many blocks there are.
    output_initializer = "zeros"

    def __init__(
        self, num_heads: int, dropout_rate: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                f"`num_heads` must be positive. Received: num_heads={num_heads}"
            )
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy)

    def build(self, inputs_shape, memory_shape=None):
        embed = inputs_shape[-1]
        if embed % self.num_heads:
            raise ValueError(
                f"`num_heads` must divide the width of the inputs, {embed}. "
                f"Received: num_heads={self.num_heads}"
            )
        memory_shape = memory_shape or inputs_shape
        for name in ("query", "key", "value", "output_projection"):
            last = name == "output_projection"
            dense = keras.layers.Dense(
                embed,
                kernel_initializer=self.output_initializer
                if last
                else "glorot_uniform",
                dtype=self.dtype_policy,
                name=name,
            )
            dense.build(memory_shape if name in ("key", "value") else inputs_shape)
            setattr(self, name, dense)

    # Not `mask`: Keras means padding by that word, and warns where it is lost.
    def call(
        self,
        inputs: Tensor,
        memory: Tensor | None = None,
        attention_mask: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        keys, values = self.keys_values(inputs if memory is None else memory)
        bias = None
        if attention_mask is not None:
            bias = ops.where(attention_mask, 0.0, MASKED)
        queries = self._queries(inputs)
        return self._merge(self._weigh(queries, keys, values, bias, training))

    def attention_weights(
        self,
        inputs: Tensor,
        memory: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Returns where each query looks; the arguments are those of a call.

        Returns:
            float `(batch, heads, length, memory)`; each row sums to 1.
        """
        keys, _ = self.keys_values(inputs if memory is None else memory)
        bias = None
        if attention_mask is not None:
            bias = ops.where(attention_mask, 0.0, MASKED)
        # Values of which each is one key alone: their mean is the weights themselves.
        memory = keys.shape[2]
        values = ops.eye(memory, dtype=self.compute_dtype)
        values = ops.broadcast_to(values, (*ops.shape(keys)[:2], memory, memory))
        return self._weigh(self._queries(inputs), keys, values, bias, False)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values, each float `(batch, heads, memory, kv)`."""
        return self._split(self.key, memory), self._split(self.value, memory)

    def _queries(self, inputs):
        queries = self._split(self.query, inputs)  # (batch, heads, length, kv)
        return queries * (queries.shape[-1] ** -0.5)

    def _weigh(self, queries, keys, values, bias, training):
        """Equation 1 of the paper, for queries that are scaled already."""
        dropping = training and self.dropout_rate
        if not dropping and in_parts(*queries.shape[1:3], keys.shape[2]):
            return attend_in_parts(queries, keys, values, bias)
        logits = ops.matmul(queries, ops.swapaxes(keys, -1, -2))
        # float32, since bfloat16 keeps 8 significant bits of a logit.
        logits = ops.cast(logits, "float32")  # (batch, heads, length, memory)
        if bias is not None:
            # Added, not chosen by `where`, whose gradient is one more pass over the
            # logits: 170 ms in place of 182, forward and backward, at 1,024 tokens.
            logits = logits + bias
        weights = ops.cast(ops.softmax(logits, axis=-1), self.compute_dtype)
        weights = self.dropout(weights, training=training)
        return ops.matmul(weights, values)  # (batch, heads, length, kv)

    def _merge(self, x):
        batch, heads, length, kv = ops.shape(x)
        x = ops.transpose(x, (0, 2, 1, 3))
        x = self.output_projection(ops.reshape(x, (-1, heads * kv)))
        return ops.reshape(x, (batch, length, heads * kv))

    def _split(self, dense, x):
        batch, length, embed = ops.shape(x)
        x = dense(ops.reshape(x, (-1, embed)))
        kv = x.shape[-1] // self.num_heads
        x = ops.reshape(x, (batch, length, self.num_heads, kv))
        return ops.transpose(x, (0, 2, 1, 3))

    def compute_output_shape(self, inputs_shape, memory_shape=None):
        return inputs_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout_rate": self.dropout_rate,
        }
