"""Vector quantisation: continuous vectors in, codebook ids out."""

from typing import Any

import keras
from keras import ops

from keras_parti.layers.logits import largest
from keras_parti.typing import Tensor


@keras.saving.register_keras_serializable("keras_parti")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each vector by its nearest codebook entry.

    Vectors and codes are put on the unit sphere first, so that the nearest code
    is the one of largest cosine. Gradients pass straight through to the inputs.
    The layer adds one scalar loss, the codebook term plus `commitment_cost` times
    the commitment term, averaged over all elements.

    Args:
        num_codes: int. Number of codebook entries.
        code_dim: int. Width of one entry; the last axis of the inputs.
        commitment_cost: float. Weight of the commitment term, β in the paper.
        normalized: bool. False leaves vectors and codes as they are and takes the
            code of least Euclidean distance: the plain VQ of the paper's ablation,
            table 4.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, length, code_dim)`.

    Returns:
        A dict of `codes`, float `(batch, length, code_dim)`, of unit norm where
        `normalized`, and `ids`, int32 `(batch, length)` in `[0, num_codes)`.

    Example:
        >>> quantizer = VectorQuantizer(num_codes=5, code_dim=3)
        >>> found = quantizer(ops.ones((2, 7, 3)))
        >>> tuple(found["ids"].shape), len(quantizer.losses)
        ((2, 7), 1)

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3.2, eq. 1
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), eq. 3
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        commitment_cost: float = 0.25,
        normalized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_codes < 2:
            raise ValueError(
                f"`num_codes` must be at least 2. Received: num_codes={num_codes}"
            )
        self.num_codes = num_codes
        self.code_dim = code_dim
        self.commitment_cost = commitment_cost
        self.normalized = normalized
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: code_dim})

    def build(self, input_shape):
        self.codebook = self.add_weight(
            name="codebook",
            shape=(self.num_codes, self.code_dim),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            # float32 even under mixed precision: bfloat16 keeps 8 significant
            # bits, too few to rank thousands of cosines.
            autocast=False,
        )

    def call(self, inputs: Tensor) -> dict[str, Tensor]:
        vectors = self.normalize(inputs)
        ids = self.nearest(vectors)
        codes = self.lookup(ids)
        codebook_loss = ops.mean(ops.square(ops.stop_gradient(vectors) - codes))
        commitment_loss = ops.mean(ops.square(vectors - ops.stop_gradient(codes)))
        self.add_loss(codebook_loss + self.commitment_cost * commitment_loss)
        codes = vectors + ops.stop_gradient(codes - vectors)
        return {"codes": ops.cast(codes, self.compute_dtype), "ids": ids}

    def normalize(self, vectors: Tensor) -> Tensor:
        """Returns vectors in float32, of unit norm along the last axis.

        Where not `normalized`, as they are.
        """
        vectors = ops.cast(vectors, "float32")
        return ops.normalize(vectors, axis=-1) if self.normalized else vectors

    def nearest(self, vectors: Tensor) -> Tensor:
        """Returns the ids, int32 `(batch, length)`, of the nearest codes.

        Args:
            vectors: float `(batch, length, code_dim)`.
        """
        codebook = self.normalize(self.codebook)
        scores = ops.matmul(self.normalize(vectors), ops.transpose(codebook))
        if not self.normalized:
            # -|v - c|² / 2 without the |v|² / 2 that all codes share; of unit vectors
            # the cosine alone decides.
            scores -= 0.5 * ops.sum(ops.square(codebook), axis=-1)
        return largest(scores)

    def lookup(self, ids: Tensor) -> Tensor:
        """Returns the codes of ids, float32 `(batch, length, code_dim)`.

        Args:
            ids: int32 `(batch, length)` in `[0, num_codes)`.
        """
        return self.normalize(ops.take(self.codebook, ids, axis=0))

    def compute_output_spec(self, inputs):
        return {
            "codes": keras.KerasTensor(inputs.shape, self.compute_dtype),
            "ids": keras.KerasTensor(inputs.shape[:-1], "int32"),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_dim": self.code_dim,
            "commitment_cost": self.commitment_cost,
            "normalized": self.normalized,
        }
