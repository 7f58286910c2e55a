"""WDSR: small pictures to large ones, by residual blocks that are wide inside."""

import dataclasses
import math
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_parti import layers
from keras_parti.models.base import ConfigModel, check_positive
from keras_parti.typing import Tensor

BLOCKS = ("a", "b")
# RGB of a mean picture of DIV2K, on which the published WDSR were trained.
MEAN = (0.4488, 0.4371, 0.4040)
# The share of channels that the linear low-rank convolution of a block B keeps.
LOW_RANK = 0.8


@dataclasses.dataclass(frozen=True)
class WDSRConfig:
    """Sizes of a WDSR; the defaults are those of the published WDSR-A, ×2."""

    scale: int = 2  # output pixels an input pixel, along each side
    block: str = "a"  # "a" or "b", figure 2 of the paper
    num_blocks: int = 16  # where `staged`, of each stage
    filters: int = 32  # channels between blocks
    expansion: int = 4  # channels inside a block, per channel between blocks
    # False: all at the size of the input, and one pixel shuffle at the end, as in the
    # paper. True: log₂ scale stages of blocks, each of which doubles the sides.
    staged: bool = False
    # False: plain kernels, as `WDSR.fold` makes them.
    weight_normalized: bool = True

    def __post_init__(self):
        check_positive(self)
        if self.block not in BLOCKS:
            raise ValueError(
                f"`block` is one of {', '.join(BLOCKS)}. Received: block={self.block!r}"
            )
        if self.staged and (self.scale < 2 or self.scale & (self.scale - 1)):
            raise ValueError(
                "`scale` must be a power of two where `staged`. "
                f"Received: scale={self.scale}"
            )

    @property
    def num_stages(self):
        """Number of stacks of blocks, each at twice the size of the one before."""
        return int(math.log2(self.scale)) if self.staged else 1

    @property
    def radius(self):
        """How far from a pixel, in input pixels, another one may change its output.

        A pixel of the input farther away, along either axis, changes none of the
        `scale²` pixels that one becomes.
        """
        reach = 1 + (2 if self.block == "a" else 1) * self.num_blocks  # head and blocks
        if not self.staged:
            return max(2, reach + 1)  # the 5×5 skip; the tail
        reach = float(reach + 1)
        for stage in range(1, self.num_stages):
            blocks = (2 if self.block == "a" else 1) * self.num_blocks
            reach += (blocks + 1) / 2**stage
        return max(2, math.ceil(reach + 1 / self.scale))


def bicubic_kernel(scale):
    """Returns the 5×5 convolution that, before a pixel shuffle, enlarges bicubically.

    Args:
        scale: int. Output pixels an input pixel, along each side.

    Returns:
        float32 NumPy `(5, 5, 3, 3 · scale²)`.

    References:
        - Keys, 1981, Cubic convolution interpolation for digital image processing,
          eq. 15: a is -1/2
    """
    # From the five input pixels to the middle of each output pixel.
    middles = (np.arange(scale) + 0.5) / scale - 0.5
    x = np.abs(np.arange(-2, 3)[:, None] - middles)  # (5, scale)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    kernel = np.einsum("yi,xj,cd->yxcijd", taps, taps, np.eye(3))
    return kernel.reshape(5, 5, 3, 3 * scale**2).astype("float32")


def _conv(config, filters, kernel_size, gain, dtype, name):
    """A weight-normalised convolution, or a plain one of the same shape."""
    if config.weight_normalized:
        return layers.WeightNormalizedConv(
            filters, kernel_size, gain, dtype=dtype, name=name
        )
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        padding="same",
        data_format="channels_last",
        dtype=dtype,
        name=name,
    )


class _Block(keras.layers.Layer):
    """Adds to the features what convolutions make of them; ReLU after the widest."""

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        n, wide = config.filters, config.filters * config.expansion
        # Gains as in the authors' code: blocks add variances up to that of one.
        last = 1.0 / math.sqrt(config.num_blocks)
        if config.block == "a":
            shapes = [("wide", wide, 3, 2.0), ("narrow", n, 3, last)]
        else:
            low = int(LOW_RANK * n)
            shapes = [("wide", wide, 1, 2.0), ("low_rank", low, 1, 1.0)]
            shapes += [("narrow", n, 3, last)]
        self.convs = [
            _conv(config, filters, side, gain, self.dtype_policy, name)
            for name, filters, side, gain in shapes
        ]

    def build(self, input_shape):
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = conv.compute_output_shape(input_shape)

    def call(self, inputs):
        wide, *others = self.convs
        x = ops.relu(wide(inputs))
        for conv in others:
            x = conv(x)
        return inputs + x

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("keras_parti")
class WDSR(ConfigModel):
    """Enlarges pictures by `config.scale`.

    Two branches are added: a deep one on features, and one 5×5 convolution of the
    picture, which carries its colours. Both end in a pixel shuffle.

    Untrained it enlarges bicubically, but for two pixels along the edges: the skip
    begins as that interpolation and the deep branch at zero. The authors begin at
    random; here a small model would take its first thousands of steps to come so far.

    Parti's upsamplers are "WDSR, 12 residual blocks with 128 channels", of about 15M
    parameters for ×2 and 30M for ×4. Which block, which expansion, and whether weights
    are normalised is not published. No WDSR of one stack has both counts with one
    expansion; here each doubling is a stage of 12 blocks A of expansion 4, a 3×3
    convolution to four times the channels and a shuffle, and a 3×3 convolution to RGB
    ends them: 14.8M and 29.5M. The departure from WDSR is that convolution after the
    shuffle.

    Args:
        config: `WDSRConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Call arguments:
        images: float `(batch, height, width, 3)`, RGB in `[0, 1]`, of any size.

    Returns:
        A dict of `images`, float32 `(batch, scale · height, scale · width, 3)`, near
        `[0, 1]` and not clipped.

    Example:
        >>> import numpy as np
        >>> model = WDSR.from_preset("wdsr_tiny")
        >>> tuple(model.upscale(np.zeros((1, 5, 7, 3), "float32")).shape)
        (1, 10, 14, 3)

    References:
        - [Yu et al., 2018](https://arxiv.org/abs/1808.08718), sections 3.1 and 3.2
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.1
    """

    config_class = WDSRConfig

    def __init__(self, config: WDSRConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        n, s = config.filters, config.scale
        self.head = _conv(config, n, 3, 1.0, dtype, "head")
        self.blocks = [
            _Block(config, dtype=dtype, name=f"block_{i}")
            for i in range(config.num_stages * config.num_blocks)
        ]
        self.enlarging = []
        if config.staged:
            self.enlarging = [
                _conv(config, 4 * n, 3, 1.0, dtype, f"enlarge_{stage}")
                for stage in range(config.num_stages)
            ]
            self.doubling = layers.PixelShuffle(2, dtype=dtype, name="doubling")
        self.tail = _conv(
            config, 3 if config.staged else 3 * s * s, 3, 1.0, dtype, "tail"
        )
        self.skip = _conv(config, 3 * s * s, 5, 1.0, dtype, "skip")
        self.shuffle = layers.PixelShuffle(s, dtype=dtype, name="shuffle")
        pictures, features = (None, None, None, 3), (None, None, None, n)
        for layer in (self.head, self.skip):
            layer.build(pictures)
        for layer in (*self.blocks, *self.enlarging, self.tail):
            layer.build(features)
        self._start_as_bicubic()
        self.built = True

    def _start_as_bicubic(self):
        kernel = bicubic_kernel(self.scale)
        if self.config.weight_normalized:
            self.skip.v.assign(kernel)
            self.skip.g.assign(np.sqrt(np.square(kernel).sum((0, 1, 2))))
            self.tail.g.assign(np.zeros(self.tail.filters, "float32"))
        else:
            self.skip.kernel.assign(kernel)
            self.tail.kernel.assign(np.zeros(self.tail.kernel.shape, "float32"))

    @property
    def scale(self):
        """Output pixels an input pixel, along each side."""
        return self.config.scale

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        if len(images.shape) != 4 or images.shape[-1] != 3:
            raise ValueError(
                "`images` must be (batch, height, width, 3). "
                f"Received: shape {tuple(images.shape)}"
            )
        x = ops.cast(images, "float32") - ops.convert_to_tensor(MEAN)
        centred = ops.cast(x, self.compute_dtype)
        x = self.head(centred)  # (batch, height, width, filters)
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if self.config.staged and i % self.config.num_blocks == 0:
                stage = i // self.config.num_blocks - 1
                x = self.doubling(self.enlarging[stage](x))
        deep, colours = self.tail(x), self.skip(centred)
        if self.config.staged:
            x = deep + self.shuffle(colours)
        else:
            x = self.shuffle(deep + colours)
        return {"images": ops.cast(x, "float32") + ops.convert_to_tensor(MEAN)}

    def upscale(self, images: Tensor) -> Tensor:
        """Returns pictures enlarged, float32, RGB clipped to `[0, 1]`.

        Args:
            images: float `(batch, height, width, 3)`, RGB in `[0, 1]`. All of it is in
                memory at once, see `keras_parti.models.upscale_tiled` for large ones.
        """
        return ops.clip(self(images, training=False)["images"], 0.0, 1.0)

    def fold(self) -> Self:
        """Returns the same model with plain kernels: what is exported, and faster.

        Its outputs are those of this model, up to the rounding of a product.
        """
        config = dataclasses.replace(self.config, weight_normalized=False)
        folded = WDSR(config, name=self.name, dtype=self.dtype_policy)
        for ours, theirs in zip(self._convs(), folded._convs(), strict=True):
            if self.config.weight_normalized:
                theirs.set_weights([ours.kernel(), ours.bias])
            else:
                theirs.set_weights(ours.get_weights())
        return folded

    def _convs(self):
        inside = [conv for block in self.blocks for conv in block.convs]
        return [self.head, *inside, *self.enlarging, self.tail, self.skip]
