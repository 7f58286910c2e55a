"""Attentional pooling: a sequence of any length to a few vectors."""

from typing import Any

import keras
from keras import ops

from keras_parti.layers.attention import MultiHeadAttention
from keras_parti.typing import Tensor


@keras.saving.register_keras_serializable("keras_parti")
class AttentionalPooler(MultiHeadAttention):
    """Learned queries that attend to a sequence once.

    As CoCa has it, a single multi-head attention layer: no residual, no feed-forward.
    Its output projection therefore does not begin at zeros, as those of blocks do.

    Args:
        num_queries: int. Vectors that come out.
        num_heads: int. Number of heads; divides the width of the inputs.
        dropout_rate: float in `[0, 1)`. Share of attention weights dropped in
            training.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, memory, embed)`. Keys and values.

    Returns:
        float `(batch, num_queries, embed)`.

    Raises:
        ValueError: where `num_queries` is not positive, or `num_heads` does not divide
            the width.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2205.01917), section 3.2
    """

    output_initializer = "glorot_uniform"

    def __init__(
        self, num_queries: int, num_heads: int, dropout_rate: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(num_heads, dropout_rate, **kwargs)
        if num_queries < 1:
            raise ValueError(
                f"`num_queries` must be positive. Received: num_queries={num_queries}"
            )
        self.num_queries = num_queries

    def build(self, inputs_shape):
        self.queries = self.add_weight(
            name="queries",
            shape=(self.num_queries, inputs_shape[-1]),
            # Of the inputs' size behind a norm, or all queries would see the same.
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        super().build(
            (inputs_shape[0], self.num_queries, inputs_shape[-1]), inputs_shape
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        queries = ops.cast(self.queries, self.compute_dtype)[None]
        queries = ops.repeat(queries, ops.shape(inputs)[0], axis=0)
        return super().call(queries, memory=inputs, training=training)

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], self.num_queries, inputs_shape[-1])

    def get_config(self):
        return {**super().get_config(), "num_queries": self.num_queries}
