"""Logits in full precision, whose backward pass may be computed in less."""

from typing import Any

import keras
from keras import ops

from keras_parti.layers.processors import on_processor
from keras_parti.typing import Tensor


@keras.saving.register_keras_serializable("keras_parti")
class LogitsDense(keras.layers.Layer):
    """A dense layer whose two products of the backward pass have a dtype of their own.

    Parti's output is computed in float32, while its blocks are in bfloat16. Rounded
    logits would be wrong by 1 part in 256. The gradients reach blocks that round them
    anyway, and on processors with AMX, where the logits are a fifth of a small model's
    step, a product in float32 takes three times as long as one in bfloat16.

    Args:
        units: int. Number of logits.
        backward_dtype: str or None. The type that the gradients' products are computed
            in; what they return is again of the layer's type. None, or the layer's own
            type: those of `keras.layers.Dense`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(..., embed)`.

    Returns:
        float `(..., units)`.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 3
    """

    def __init__(
        self, units: int, backward_dtype: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.backward_dtype = backward_dtype

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            initializer="glorot_uniform",
        )
        self._build_bias()

    def _build_bias(self):
        self.bias = self.add_weight(
            name="bias", shape=(self.units,), initializer="zeros"
        )

    def call(self, inputs: Tensor) -> Tensor:
        if self.backward_dtype in (None, self.compute_dtype):
            return ops.add(ops.matmul(inputs, self.kernel), self.bias)
        # TensorFlow wants tensors, not variables, where gradients are given.
        kernel, bias = ops.copy(self.kernel), ops.copy(self.bias)
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        logits = _affine(rows, kernel, bias, self.backward_dtype)
        return ops.reshape(logits, (*ops.shape(inputs)[:-1], self.units))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "backward_dtype": self.backward_dtype,
        }


def _affine(inputs, kernel, bias, backward_dtype):
    """Returns `inputs @ kernel + bias`, whose gradients are products in another dtype.

    Args:
        inputs: float `(rows, embed)`.
        kernel: float `(embed, units)`.
        bias: float `(units,)`.
        backward_dtype: str. The dtype of what is multiplied in the backward pass.
    """

    @ops.custom_gradient
    def affine(x, kernel, bias):
        # Cast here, so that only these copies are kept for the backward pass.
        low_x, low_kernel = (ops.cast(t, backward_dtype) for t in (x, kernel))
        dtype = x.dtype

        def gradients(upstream):
            # A sum over rows as a product: 12 ms for 4,096 x 8,192, where the sum of
            # TensorFlow takes 74.
            ones = ops.ones((1, ops.shape(upstream)[0]), dtype)
            of_bias = ops.reshape(ops.matmul(ones, upstream), bias.shape)
            upstream = ops.cast(upstream, backward_dtype)
            of_x = ops.matmul(upstream, ops.transpose(low_kernel))
            of_kernel = ops.matmul(ops.transpose(low_x), upstream)
            return ops.cast(of_x, dtype), ops.cast(of_kernel, dtype), of_bias

        return ops.add(ops.matmul(x, kernel), bias), gradients

    return affine(inputs, kernel, bias)


def largest(logits: Tensor) -> Tensor:
    """Returns where each vector is largest, int32, at the first of equal places.

    Args:
        logits: float `(..., choices)`.
    """
    if on_processor():
        # `argmax` of Keras tells −0 from 0, in three passes more: of 4,096 vectors and
        # 8,192 codes 56 ms in place of 21.
        return ops.top_k(logits, 1)[1][..., 0]
    return ops.cast(ops.argmax(logits, axis=-1), "int32")
