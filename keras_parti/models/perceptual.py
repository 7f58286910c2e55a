"""How different two pictures look: the distance of their VGG16 features (LPIPS)."""

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.models.perceptual_weights import STAGES, VGGWeights, read_weights
from keras_parti.typing import Tensor

# Added to the sum of squares before its root, whose slope at 0 is infinite: where a
# ReLU lets no channel through, the gradient would be NaN.
TINY = 1e-20


@keras.saving.register_keras_serializable("keras_parti")
class Perceptual(keras.Model):
    """LPIPS: weighted squared differences of normalised features.

    The features are those of VGG16 before each pooling, divided at each position by
    their norm over the channels. Their squared differences are weighted by channel,
    averaged over the positions, and summed over the five depths. The weights never
    train, and stay out of models that use the network.

    ViT-VQGAN names a VGG-based loss and cites two; which layers it takes, and how they
    are weighted, is not published. This is the second that it cites.

    Args:
        weights: `VGGWeights`, from `read_weights`.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Call arguments:
        images: float `(batch, height, width, 3)`, RGB in `[0, 1]`, 16 pixels or more
            along each side.
        others: float of the same shape; of a batch of one image others of any number.

    Returns:
        float32 `(batch,)`, not negative; 0 for equal pictures.

    References:
        - [Zhang et al., 2018](https://arxiv.org/abs/1801.03924), eq. 1
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3.3
    """

    def __init__(self, weights: VGGWeights, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trainable = False
        # Variables: as constants of a graph they took TensorFlow 70 s to fold.
        self.kernels = self._constants("kernel", weights.kernels)
        self.biases = self._constants("bias", weights.biases)
        self.heads = self._constants("head", weights.heads)
        self.mean, self.std = weights.mean, weights.std
        self.built = True

    def get_config(self):
        parts = ("kernels", "biases", "heads")
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "shapes": [[list(w.shape) for w in getattr(self, part)] for part in parts],
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_config(cls, config):
        # Zeros until the file's own weights are loaded into them.
        config = dict(config)
        shapes = config.pop("shapes")
        parts = [[np.zeros(shape, "float32") for shape in part] for part in shapes]
        mean, std = (tuple(config.pop(name)) for name in ("mean", "std"))
        return cls(VGGWeights(*parts, mean, std), **config)

    def _constants(self, name, arrays):
        return [
            self.add_weight(
                name=f"{name}_{i}",
                shape=array.shape,
                initializer=lambda *_, array=array, **__: array,
                trainable=False,
            )
            for i, array in enumerate(arrays)
        ]

    def call(self, images: Tensor, others: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != tuple(others.shape[1:]):
            raise ValueError(
                "`images` and `others` must be of one shape. "
                f"Received: {tuple(images.shape)} and {tuple(others.shape)}"
            )
        distance = 0.0
        for one, other, head in zip(
            self.features(images), self.features(others), self.heads, strict=True
        ):
            difference = ops.square(_unit(one) - _unit(other))
            weighted = ops.matmul(difference, ops.cast(head, "float32")[:, None])
            distance += ops.mean(weighted, axis=(1, 2, 3))
        return distance

    def features(self, images: Tensor) -> list[Tensor]:
        """Returns the five feature maps of images, each half as wide as the last.

        Args:
            images: float `(batch, height, width, 3)`, RGB in `[0, 1]`.

        Raises:
            ValueError: where a side has fewer than 16 pixels, one at the last map.
        """
        if min(images.shape[1:3]) < 16:
            raise ValueError(
                "`images` must have 16 pixels or more along each side. "
                f"Received: shape {tuple(images.shape)}"
            )
        x = (ops.cast(images, "float32") - self.mean) / self.std
        x = ops.cast(x, self.compute_dtype)
        maps: list[Tensor] = []
        layers = iter(zip(self.kernels, self.biases, strict=True))
        for depth, _ in STAGES:
            if maps:
                x = ops.max_pool(x, 2, 2, data_format="channels_last")
            for _ in range(depth):
                kernel, bias = next(layers)
                x = ops.conv(x, kernel, padding="same", data_format="channels_last")
                x = ops.relu(x + bias)
            maps.append(x)
        return maps


def load_perceptual(
    source: str | os.PathLike, dtype: str | keras.DTypePolicy | None = None
) -> Perceptual:
    """Builds a perceptual network.

    Args:
        source: "package", "keras" or the path of a file, as `read_weights` takes it.
        dtype: str or `keras.DTypePolicy`. On a CPU float32, whatever the policy of the
            model that is trained: value and gradient of 16 pictures of 64×64 took
            1.8 s in float32 and 9.6 s in mixed_bfloat16 on two busy cores.

    Returns:
        `Perceptual`.

    Raises:
        FileNotFoundError: there are no weights; the message says how to get them.
        ValueError: a file of something else.
    """
    return Perceptual(read_weights(source), dtype=dtype)


def _unit(features):
    """Scales features to unit norm over the channels, in float32."""
    x = ops.cast(features, "float32")
    return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + TINY)
