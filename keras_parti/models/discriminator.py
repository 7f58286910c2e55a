"""StyleGAN2's discriminator: pictures to one logit each, high for true ones."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_parti import layers
from keras_parti.models.base import ConfigModel, check_positive
from keras_parti.typing import Tensor

LARGEST_LAST_MAP = 7  # pixels: the dense layer behind it has its square times channels


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a discriminator; the defaults are StyleGAN2's large networks."""

    image_size: int = 256  # pixels, along each side
    # A map of side s has min(max_channels, channel_base // s) channels: 64 at 512
    # pixels, 128 at 256, 512 at 64 and below. 16384 is StyleGAN2's small networks'.
    channel_base: int = 32768
    max_channels: int = 512
    group_size: int = 4  # pictures that are compared with each other

    def __post_init__(self):
        check_positive(self)
        if self.last_map > LARGEST_LAST_MAP:
            raise ValueError(
                f"`image_size` must be at most {LARGEST_LAST_MAP} times a power of "
                f"two, to be halved so often. Received: image_size={self.image_size}"
            )

    @property
    def maps(self):
        """Sides of the maps in pixels, each half of the one before."""
        sides = [self.image_size]
        while sides[-1] > 4 and sides[-1] % 2 == 0:
            sides.append(sides[-1] // 2)
        return sides

    @property
    def last_map(self):
        """Side of the last map in pixels, 4 for powers of two."""
        return self.maps[-1]

    def channels(self, side: int) -> int:
        """Number of channels of a map of some side."""
        return max(1, min(self.max_channels, self.channel_base // side))


@keras.saving.register_keras_serializable("keras_parti")
class Discriminator(ConfigModel):
    """Tells true pictures from generated ones.

    A 1×1 convolution, residual blocks that halve the map down to 4×4, the deviation
    over a group of pictures, a 3×3 convolution, and two dense layers. All weights of
    equalised learning rate, all activations leaky ReLU.

    Args:
        config: `DiscriminatorConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Call arguments:
        images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.

    Returns:
        float32 `(batch,)`, logits.

    Example:
        >>> import numpy as np
        >>> model = Discriminator.from_preset("discriminator_tiny")
        >>> tuple(model(np.zeros((4, 12, 12, 3), "float32")).shape)
        (4,)

    References:
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), section 4, figure 7c
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3.3
    """

    config_class = DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        first, *smaller = config.maps
        last = config.channels(config.last_map)
        self.from_rgb = layers.EqualizedConv(
            config.channels(first), 1, dtype=dtype, name="from_rgb"
        )
        self.blocks = [
            layers.DiscriminatorBlock(
                config.channels(side), dtype=dtype, name=f"block_{side}"
            )
            for side in smaller
        ]
        self.deviation = layers.MinibatchDeviation(
            config.group_size, dtype=dtype, name="deviation"
        )
        self.conv = layers.EqualizedConv(last, 3, dtype=dtype, name="conv")
        self.flatten = keras.layers.Flatten(dtype=dtype, name="flatten")
        self.hidden = layers.EqualizedDense(
            last, "leaky_relu", dtype=dtype, name="hidden"
        )
        self.logit = layers.EqualizedDense(1, dtype=dtype, name="logit")
        shape = (None, config.image_size, config.image_size, 3)
        for layer in self._stack():
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.built = True

    def _stack(self):
        ends = (self.deviation, self.conv, self.flatten, self.hidden, self.logit)
        return (self.from_rgb, *self.blocks, *ends)

    def call(self, images: Tensor) -> Tensor:
        size = self.config.image_size
        if tuple(images.shape[1:]) != (size, size, 3):
            raise ValueError(
                f"`images` must be (batch, {size}, {size}, 3). "
                f"Received: shape {tuple(images.shape)}"
            )
        x = ops.cast(2.0 * images - 1.0, self.compute_dtype)
        for layer in self._stack():
            x = layer(x)
        return ops.cast(x[:, 0], "float32")
