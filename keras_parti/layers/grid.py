"""Positions of a picture's tokens: learned vectors of rows and columns."""

from typing import Any

import keras
from keras import ops

from keras_parti.typing import Tensor


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
