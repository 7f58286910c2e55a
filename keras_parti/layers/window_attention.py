"""Self-attention in the convolution-shaped window, without the rest of the square."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.layers.attention import MASKED, MultiHeadAttention
from keras_parti.layers.window import check_kernel, mask_between, window_length
from keras_parti.typing import Tensor

# Queries that look at one slab of keys, about. Measured forward and backward on two
# cores at 1,024 tokens, 512 wide, in a plain graph: blocks of 64 queries take 50 ms,
# of 128 60 ms, of 256 62 ms, the masked square 304 ms. Those of 64 are twice the
# operations, and XLA compiles them twice as long.
BLOCK = 128


@keras.saving.register_keras_serializable("keras_parti")
class WindowAttention(MultiHeadAttention):
    """Causal self-attention of Parti's decoder: a window of the raster is seen.

    The result is that of `MultiHeadAttention` with `window.conv_mask`, and so are the
    weights. But blocks of whole rows of queries look only at the slab of rows that
    their windows reach: for a kernel of 11, the rows of the block and the six above.

    Args:
        num_heads: int. Number of heads; divides the width of the inputs.
        kernel_size: int, odd. Side of the window, in tokens. Parti's is not published;
            DALL-E's, which it follows, is 11.
        width: int. Tokens in a row of the raster.
        wraparound: bool. Whether the window goes on at the end of the row before, as
            DALL-E's does, or is cut at the sides of the picture.
        dropout_rate: float in `[0, 1)`. Share of attention weights dropped in
            training.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, length, embed)`, a raster or the beginning of one;
            `length` must be known.

    Returns:
        float `(batch, length, embed)`.

    Raises:
        ValueError: where `num_heads` does not divide the width of the inputs, or
            `kernel_size` is not odd and positive.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.2
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), appendix B.1
    """

    def __init__(
        self,
        num_heads: int,
        kernel_size: int,
        width: int,
        wraparound: bool = True,
        dropout_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, dropout_rate, **kwargs)
        self.kernel_size = check_kernel(kernel_size)
        self.width = width
        self.wraparound = wraparound

    def build(self, inputs_shape):
        super().build(inputs_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        length, width = inputs.shape[1], self.width
        block = width * max(1, BLOCK // width)
        above = width * -(-(window_length(self.kernel_size, width) - 1) // width)
        # Every slab is a part of this one, because the window of a block is that of
        # any other, some rows further down.
        bias = ops.convert_to_tensor(self._bias(block, above))
        queries = _pieces(self._queries(inputs), block)
        keys, values = (_pieces(x, width) for x in self.keys_values(inputs))
        outputs = []
        for i, block_queries in enumerate(queries):
            start, stop = i * block, min((i + 1) * block, length)
            first = max(start - above, 0)
            rows = slice(first // width, -(-stop // width))
            seen = slice(above - (start - first), above + (stop - start))
            outputs.append(
                self._weigh(
                    block_queries,
                    ops.concatenate(keys[rows], axis=2),
                    ops.concatenate(values[rows], axis=2),
                    bias[: stop - start, seen],
                    training,
                )
            )
        return self._merge(ops.concatenate(outputs, axis=2))

    def _bias(self, block, above):
        """float32 `(block, above + block)`: 0 where a query of a block sees a key."""
        keys = np.arange(above + block)
        mask = mask_between(
            keys[above:], keys, self.kernel_size, self.width, self.wraparound
        )
        return np.where(mask, 0.0, MASKED).astype("float32")

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "width": self.width,
            "wraparound": self.wraparound,
        }


def _pieces(x, size):
    """Splits float `(batch, heads, length, kv)` into pieces of `size` positions.

    Split, and slabs joined of pieces, where one would cut out slabs: the gradient of
    each cut is as long as the whole sequence.
    """
    cuts = list(range(size, x.shape[2], size))
    return ops.split(x, cuts, axis=2) if cuts else [x]
