"""Positions of a picture's tokens: learned vectors of rows and columns."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.typing import Tensor


def sine_cosine(rows, columns, dim):
    """Returns a vector for each place of a grid, near places having like ones.

    A quarter of the width each for the sines and the cosines of the row, and of the
    column, at frequencies that fall from 1 to nearly 1/10,000. The product of two
    vectors is a sum of a term of the difference of rows and one of columns.

    Args:
        rows: int. Rows of the grid.
        columns: int. Columns of the grid.
        dim: int. Width of the vectors, a multiple of 4.

    Returns:
        NumPy float32 `(rows * columns, dim)`, in raster order, in `[-1, 1]`.

    Raises:
        ValueError: where `dim` is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            "Vectors of sines and cosines of rows and columns need a width that is a "
            f"multiple of 4. Received: {dim}"
        )
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim // 4))
    places = np.indices((rows, columns)).reshape(2, -1, 1)  # rows, columns
    angles = places * frequencies  # (2, rows * columns, dim / 4)
    halves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return np.concatenate(halves, axis=-1).astype("float32")


@keras.saving.register_keras_serializable("keras_parti")
class GridPositionEmbedding(keras.layers.Layer):
    """Adds to each token a learned vector of its row and one of its column.

    VIM's "additive learnable 2D positional embedding". Whether it has a vector for each
    row and one for each column, as here and in DALL-E, or one for each place, is not
    published. The term 1024·d in the counts that table 2 prints speaks for the latter;
    the sum is what makes neighbours above each other alike, and needs `rows + columns`
    vectors in place of `rows * columns`.

    Args:
        rows: int. Rows of the grid.
        columns: int. Columns of the grid.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, length, embed)`, at most `rows * columns` tokens, in
            raster order from the first place of the grid.

    Returns:
        float `(batch, length, embed)`.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 4
    """

    def __init__(self, rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        self.columns = columns

    def build(self, input_shape):
        self.row_vectors, self.column_vectors = (
            self.add_weight(
                name=name,
                shape=(length, input_shape[-1]),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
            )
            for name, length in (("rows", self.rows), ("columns", self.columns))
        )

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + self.vectors()[: inputs.shape[1]]

    def vectors(self) -> Tensor:
        """Returns the vectors of all places, `(rows * columns, embed)`."""
        vectors = self.row_vectors[:, None] + self.column_vectors[None]
        vectors = ops.reshape(vectors, (self.rows * self.columns, -1))
        return ops.cast(vectors, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rows": self.rows, "columns": self.columns}
