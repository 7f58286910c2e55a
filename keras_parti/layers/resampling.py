"""What enlarges pictures: a weight-normalised convolution, and pixel shuffle."""

from typing import Any

import keras
from keras import ops

from keras_parti.typing import Tensor


@keras.saving.register_keras_serializable("keras_parti")
class WeightNormalizedConv(keras.layers.Layer):
    """A convolution whose kernel is w = g · v / ‖v‖, and a bias.

    The norm is that of each output channel. Length and direction are learned apart,
    which lets WDSR train at ten times the learning rate, without batch normalisation.

    The same layer as `WeightNormalization(Conv2D)` of tensorflow-addons: outputs,
    gradients and, with `initialize_from`, what it does to its first inputs are equal.

    Args:
        filters: int. Channels of the outputs.
        kernel_size: int, odd. Side of the kernel, in pixels.
        gain: float. What g of every channel begins with.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, height, width, channels)`.

    Returns:
        float `(batch, height, width, filters)`; around the inputs are zeros.

    References:
        - [Salimans & Kingma, 2016](https://arxiv.org/abs/1602.07868), eq. 2
        - [Yu et al., 2018](https://arxiv.org/abs/1808.08718), section 3.3
    """

    def __init__(
        self, filters: int, kernel_size: int = 3, gain: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"`kernel_size` must be odd. Received: kernel_size={kernel_size}"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.gain = gain

    def build(self, input_shape):
        side = self.kernel_size
        # float32 even under mixed precision: the norm is a sum of thousands of squares.
        self.v = self.add_weight(
            name="v",
            shape=(side, side, input_shape[-1], self.filters),
            initializer="glorot_uniform",
            autocast=False,
        )
        self.g = self.add_weight(
            name="g",
            shape=(self.filters,),
            initializer=keras.initializers.Constant(self.gain),
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer="zeros"
        )

    def call(self, inputs: Tensor) -> Tensor:
        kernel = ops.cast(self.kernel(), self.compute_dtype)
        return _conv(inputs, kernel) + self.bias

    def kernel(self) -> Tensor:
        """Returns w, float32 `(kernel_size, kernel_size, channels, filters)`."""
        squares = ops.sum(ops.square(self.v), axis=(0, 1, 2))
        # The least norm is that of tensorflow-addons: it keeps a kernel of zeros one.
        return self.v * (self.g / ops.sqrt(ops.maximum(squares, 1e-12)))

    def initialize_from(self, inputs: Tensor) -> None:
        """Sets g and bias by the outputs that a batch has.

        As tensorflow-addons does on its first call: g is divided by the deviation that
        each channel of the outputs of v, not of v / ‖v‖, has over the batch, and the
        bias becomes its negative mean over its deviation. Where ‖v‖ is 1 the outputs
        then have mean 0 and variance 1, as in section 3 of the paper.

        Args:
            inputs: float `(batch, height, width, channels)`.
        """
        outputs = _conv(ops.cast(inputs, "float32"), self.v) + self.bias
        mean, variance = ops.moments(outputs, axes=(0, 1, 2))
        scale = 1.0 / ops.sqrt(variance + 1e-10)
        self.g.assign(self.g * scale)
        self.bias.assign(-mean * scale)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "gain": self.gain,
        }


def _conv(inputs, kernel):
    return ops.conv(inputs, kernel, padding="same", data_format="channels_last")


@keras.saving.register_keras_serializable("keras_parti")
class PixelShuffle(keras.layers.Layer):
    """Lays channels out as pixels: each place becomes a square of them.

    The channels of a place are those of its square's pixels, row by row.

    Args:
        scale: int. Side of the square, in pixels.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, height, width, scale² · channels)`.

    Returns:
        float `(batch, scale · height, scale · width, channels)`.

    Example:
        >>> import numpy as np
        >>> PixelShuffle(2)(np.array([[[[1.0, 2.0, 3.0, 4.0]]]]))[0, ..., 0].numpy()
        array([[1., 2.],
               [3., 4.]], dtype=float32)

    References:
        - [Shi et al., 2016](https://arxiv.org/abs/1609.05158), eq. 4
    """

    def __init__(self, scale: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if scale < 1:
            raise ValueError(f"`scale` must be positive. Received: scale={scale}")
        self.scale = scale

    def build(self, input_shape):
        if input_shape[-1] % self.scale**2:
            raise ValueError(
                f"The channels must be a multiple of {self.scale}², the pixels of a "
                f"square. Received: shape {tuple(input_shape)}"
            )

    def call(self, inputs: Tensor) -> Tensor:
        s = self.scale
        batch, height, width, _ = ops.shape(inputs)
        channels = inputs.shape[-1] // s**2
        x = ops.reshape(inputs, (batch, height, width, s, s * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))  # (batch, height, s, width, s · channels)
        return ops.reshape(x, (batch, s * height, s * width, channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        s = self.scale
        return batch, height and s * height, width and s * width, channels // s**2

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
