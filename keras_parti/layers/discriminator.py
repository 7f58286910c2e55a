"""The parts of StyleGAN2's discriminator.

All weights are drawn from a normal distribution of deviation 1 and scaled when used
(equalised learning rate), so that Adam moves all layers at the same relative speed.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.typing import Tensor

SLOPE = 0.2  # of the leaky ReLU below 0
GAIN = math.sqrt(2.0)  # keeps the variance that the leaky ReLU takes away
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the blur along each axis, before they are normalised


def leaky_relu(x):
    """Returns √2 · max(x, 0.2·x)."""
    return ops.leaky_relu(x, SLOPE) * GAIN


def blur(images, padding, stride=1):
    """Filters each channel by [1, 3, 3, 1] along both axes, with zeros around.

    Args:
        images: float `(batch, height, width, channels)`.
        padding: (int, int). Zeros before and after, along each axis.
        stride: int. Every so many-th value is kept.

    Returns:
        float of the same type; each axis is `(size + zeros - 4) // stride + 1` long.

    References:
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), appendix B
        - [Zhang, 2019](https://arxiv.org/abs/1904.11486), section 3
    """
    taps = np.outer(TAPS, TAPS) / sum(TAPS) ** 2
    kernel = np.repeat(taps[:, :, None, None], images.shape[-1], axis=2)
    x = ops.pad(images, ((0, 0), padding, padding, (0, 0)))
    return ops.depthwise_conv(
        x, ops.cast(kernel, x.dtype), stride, data_format="channels_last"
    )


class _Equalised(keras.layers.Layer):
    """A kernel of N(0, 1), scaled by 1/√fan_in when used, a bias, a leaky ReLU."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        if activation not in ("leaky_relu", "linear"):
            raise ValueError(
                "`activation` is leaky_relu or linear. "
                f"Received: activation={activation!r}"
            )
        self.activation = activation

    def _add_weights(self, kernel_shape, use_bias=True):
        self.scale = 1.0 / math.sqrt(math.prod(kernel_shape[:-1]))
        self.kernel = self.add_weight(
            name="kernel",
            shape=kernel_shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        self.bias = None
        if use_bias:
            self.bias = self.add_weight(
                name="bias", shape=kernel_shape[-1:], initializer="zeros"
            )

    def _finish(self, x):
        if self.bias is not None:
            x = x + self.bias
        return leaky_relu(x) if self.activation == "leaky_relu" else x


@keras.saving.register_keras_serializable("keras_parti")
class EqualizedDense(_Equalised):
    """A dense layer of equalised learning rate.

    Args:
        units: int. Width of the outputs.
        activation: "leaky_relu", with its gain of √2, or "linear".
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, channels)`.

    Returns:
        float `(batch, units)`.

    References:
        - [Karras et al., 2018](https://arxiv.org/abs/1710.10196), section 4.1
    """

    def __init__(self, units: int, activation: str = "linear", **kwargs: Any) -> None:
        super().__init__(activation, **kwargs)
        self.units = units

    def build(self, input_shape):
        self._add_weights((input_shape[-1], self.units))

    def call(self, inputs: Tensor) -> Tensor:
        return self._finish(ops.matmul(inputs, self.kernel * self.scale))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        config = {"units": self.units, "activation": self.activation}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("keras_parti")
class EqualizedConv(_Equalised):
    """A convolution of equalised learning rate, which can halve after a blur.

    Args:
        filters: int. Channels of the outputs.
        kernel_size: int, odd. Side of the kernel, in pixels.
        downsample: bool. Whether to blur and take every second pixel.
        activation: "leaky_relu", with its gain of √2, or "linear".
        use_bias: bool.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, height, width, channels)`; height and width even to be
            halved.

    Returns:
        float `(batch, height, width, filters)`, or half as high and wide.

    References:
        - [Karras et al., 2018](https://arxiv.org/abs/1710.10196), section 4.1
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), figure 7
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        downsample: bool = False,
        activation: str = "leaky_relu",
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(activation, **kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.downsample = downsample
        self.use_bias = use_bias

    def build(self, input_shape):
        side = self.kernel_size
        self._add_weights((side, side, input_shape[-1], self.filters), self.use_bias)

    def call(self, inputs: Tensor) -> Tensor:
        x, stride, padding = inputs, 1, "same"
        if self.downsample:
            # The centre of an output lies between the two inputs that it replaces.
            around = self.kernel_size + 1
            padding = "valid"
            if self.kernel_size == 1:
                x = blur(x, (1, 1), stride=2)  # no other pixel would be used
            else:
                x, stride = blur(x, (-(-around // 2), around // 2)), 2
        kernel = self.kernel * self.scale
        x = ops.conv(x, kernel, stride, padding, data_format="channels_last")
        return self._finish(x)

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        if self.downsample:
            sides = [side and side // 2 for side in sides]
        return (batch, *sides, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "downsample": self.downsample,
            "activation": self.activation,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable("keras_parti")
class DiscriminatorBlock(keras.layers.Layer):
    """Two convolutions that halve a map, beside a residual that halves it too.

    Args:
        filters: int. Channels of the outputs.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, height, width, channels)`, height and width even.

    Returns:
        float `(batch, height / 2, width / 2, filters)`.

    References:
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), figure 7c
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        dtype = self.dtype_policy
        self.first = EqualizedConv(input_shape[-1], dtype=dtype, name="first")
        self.second = EqualizedConv(
            self.filters, downsample=True, dtype=dtype, name="second"
        )
        self.residual = EqualizedConv(
            self.filters,
            1,
            True,
            "linear",
            use_bias=False,
            dtype=dtype,
            name="residual",
        )
        for layer in (self.first, self.second, self.residual):
            layer.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        # √2 keeps the variance of the sum at that of its parts.
        return (self.second(self.first(inputs)) + self.residual(inputs)) / GAIN

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        return (batch, *[side and side // 2 for side in sides], self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("keras_parti")
class MinibatchDeviation(keras.layers.Layer):
    """Adds a channel that tells how much the pictures of a group differ.

    The standard deviation of each value over the group, averaged over all values, is
    one number a group, written to every position of its pictures.

    A group is `group_size` consecutive rows, the last one what remains. StyleGAN2
    strides through the batch instead; consecutive rows stay together when a batch is
    divided among replicas or accumulated in parts, if these are multiples of a group.

    Args:
        group_size: int. Rows of a group.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: float `(batch, height, width, channels)`.

    Returns:
        float `(batch, height, width, channels + 1)`.

    References:
        - [Karras et al., 2018](https://arxiv.org/abs/1710.10196), section 3
    """

    def __init__(self, group_size: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if group_size < 1:
            raise ValueError(
                f"`group_size` must be positive. Received: group_size={group_size}"
            )
        self.group_size = group_size

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.cast(inputs, "float32")
        group = ops.arange(ops.shape(x)[0]) // self.group_size
        # (batch, batch): which rows are in one group, each row adding up to 1.
        member = ops.cast(group[:, None] == group[None], "float32")
        member = member / ops.sum(member, axis=1, keepdims=True)
        centred = x - ops.tensordot(member, x, axes=1)
        variance = ops.tensordot(member, ops.square(centred), axes=1)
        # 1e-8 as in StyleGAN2: the slope of a root at 0 is infinite.
        deviation = ops.mean(
            ops.sqrt(variance + 1e-8), axis=(1, 2, 3), keepdims=True
        )  # (batch, 1, 1, 1)
        channel = ops.ones_like(x[..., :1]) * deviation
        return ops.concatenate([inputs, ops.cast(channel, inputs.dtype)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 1)

    def get_config(self):
        return {**super().get_config(), "group_size": self.group_size}
