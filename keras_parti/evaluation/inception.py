"""Inception v3, the network whose features the FID is defined by.

The FID's network is no usual Inception: 1,008 classes, and in its last block the pooled
branch takes the maximum. Its weights are read from the file of the PyTorch port that
the paper used, `pt_inception-2015-12-05-6726825d.pth`, without PyTorch.
"""

import os
from pathlib import Path

import keras
import numpy as np

from keras_parti.evaluation.efficientnet import fold_batch_norm
from keras_parti.weight_files import read_torch_file

SIZE = 299  # side in pixels that pictures are enlarged to, bilinear
BATCH = 32


class InceptionFeatures:
    """The pooled features of Inception v3, and its logits.

    Args:
        weights: path of the FID's weight file; None takes Keras' own Inception v3,
            trained on ImageNet and fetched once: its distances rank models as well, but
            are no published FID.
        dtype: "float32", or "mixed_bfloat16" for speed where processors have it; of
            the network of a file.

    Raises:
        ValueError: the file holds other weights.
        OSError: there is no such file, or Keras cannot fetch its own.
    """

    def __init__(
        self, weights: str | os.PathLike | None = None, dtype: str = "float32"
    ) -> None:
        if weights is None:
            network, self.name = _keras_inception(), "keras-inception"
        else:
            network = fid_inception(read_torch_file(Path(weights)), dtype)
            self.name = "inception"
            if dtype != "float32":
                self.name += f"-{dtype}"
        self.network = network
        # XLA's CPU backend is slower than TensorFlow's own kernels here; JAX has
        # nothing else.
        network.compile(jit_compile=keras.backend.backend() == "jax")
        self.width, self.classes = (
            network.output[name].shape[-1] for name in ("features", "logits")
        )

    def __call__(self, images):
        """Computes features.

        Args:
            images: uint8 `(batch, height, width, 3)`.

        Returns:
            A dict of float32 NumPy: `features` `(batch, 2048)`, not negative, and
            `logits` `(batch, classes)`.
        """
        images = np.asarray(images)
        parts = []
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            # One shape for all batches, so that the graph is traced once.
            full = np.pad(some, ((0, BATCH - len(some)), (0, 0), (0, 0), (0, 0)))
            found = self.network.predict_on_batch(full)
            parts.append({name: value[: len(some)] for name, value in found.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def fid_inception(weights, dtype="float32"):
    """Builds the FID's Inception v3, batch normalisation folded in.

    Args:
        weights: dict of name to NumPy array, as the PyTorch port names them, such as
            `Mixed_5b.branch1x1.conv.weight`, kernels `(out, in, height, width)`.
        dtype: str. A dtype policy of the convolutions.

    Returns:
        A `keras.Model` of images, 0 to 255, `(batch, height, width, 3)`, to a dict of
        `features`, float32 `(batch, 2048)`, and `logits`.

    Raises:
        ValueError: an array is missing.

    References:
        - [Szegedy et al., 2015](https://arxiv.org/abs/1512.00567), table 1
    """
    try:
        return _Builder(weights, dtype).model()
    except KeyError as error:
        raise ValueError(
            f"These are no weights of the FID's Inception: {error} is missing."
        ) from error


class _Builder:
    """The network, block by block; widths are those of the weights themselves."""

    def __init__(self, weights, dtype):
        self.weights, self.dtype, self.values = weights, dtype, {}

    def conv(self, x, name, strides=1, padding="same"):
        kernel = self.weights[f"{name}.conv.weight"]
        kernel, bias = fold_batch_norm(kernel, self.weights, f"{name}.bn")
        name = name.replace(".", "_")
        self.values[name] = kernel, bias
        layer = keras.layers.Conv2D(
            len(bias), kernel.shape[:2], strides, padding, activation="relu",
            data_format="channels_last", dtype=self.dtype, name=name,
        )  # fmt: skip
        return layer(x)

    def chain(self, x, block, names):
        for name in names:
            x = self.conv(x, f"{block}.{name}")
        return x

    def pooled(self, x, block, kind="average"):
        return self.conv(_pool(x, 1, "same", kind), f"{block}.branch_pool")

    def model(self):
        images = keras.Input((None, None, 3), dtype="float32")
        x = keras.ops.image.resize(
            images, (SIZE, SIZE), "bilinear", data_format="channels_last"
        )
        x = x / 127.5 - 1.0
        x = self.conv(x, "Conv2d_1a_3x3", 2, "valid")  # (batch, 149, 149, 32)
        x = self.conv(x, "Conv2d_2a_3x3", 1, "valid")
        x = _pool(self.conv(x, "Conv2d_2b_3x3"))  # (batch, 73, 73, 64)
        x = self.conv(x, "Conv2d_3b_1x1", 1, "valid")
        x = _pool(self.conv(x, "Conv2d_4a_3x3", 1, "valid"))  # (batch, 35, 35, 192)
        for letter in "bcd":
            x = self.block_35(x, f"Mixed_5{letter}")
        x = self.reduction_17(x)  # (batch, 17, 17, 768)
        for letter in "bcde":
            x = self.block_17(x, f"Mixed_6{letter}")
        x = self.reduction_8(x)  # (batch, 8, 8, 1280)
        x = self.block_8(x, "Mixed_7b", "average")
        x = self.block_8(x, "Mixed_7c", "max")  # (batch, 8, 8, 2048)
        features = keras.ops.mean(keras.ops.cast(x, "float32"), axis=(1, 2))
        self.values["fc"] = self.weights["fc.weight"].T, self.weights["fc.bias"]
        classes = len(self.weights["fc.bias"])
        logits = keras.layers.Dense(classes, dtype="float32", name="fc")(features)
        model = keras.Model(images, {"features": features, "logits": logits})
        for name, arrays in self.values.items():
            model.get_layer(name).set_weights(arrays)
        return model

    def block_35(self, x, block):
        threes = [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
        return _join(
            self.conv(x, f"{block}.branch1x1"),
            self.chain(x, block, ["branch5x5_1", "branch5x5_2"]),
            self.chain(x, block, threes),
            self.pooled(x, block),
        )

    def reduction_17(self, x):
        block = "Mixed_6a"
        double = self.chain(x, block, ["branch3x3dbl_1", "branch3x3dbl_2"])
        return _join(
            self.conv(x, f"{block}.branch3x3", 2, "valid"),
            self.conv(double, f"{block}.branch3x3dbl_3", 2, "valid"),
            _pool(x),
        )

    def block_17(self, x, block):
        return _join(
            self.conv(x, f"{block}.branch1x1"),
            self.chain(x, block, [f"branch7x7_{i}" for i in (1, 2, 3)]),
            self.chain(x, block, [f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]),
            self.pooled(x, block),
        )

    def reduction_8(self, x):
        block = "Mixed_7a"
        three = self.conv(x, f"{block}.branch3x3_1")
        seven = self.chain(x, block, [f"branch7x7x3_{i}" for i in (1, 2, 3)])
        return _join(
            self.conv(three, f"{block}.branch3x3_2", 2, "valid"),
            self.conv(seven, f"{block}.branch7x7x3_4", 2, "valid"),
            _pool(x),
        )

    def block_8(self, x, block, kind):
        three = self.conv(x, f"{block}.branch3x3_1")
        double = self.chain(x, block, ["branch3x3dbl_1", "branch3x3dbl_2"])
        return _join(
            self.conv(x, f"{block}.branch1x1"),
            self.conv(three, f"{block}.branch3x3_2a"),
            self.conv(three, f"{block}.branch3x3_2b"),
            self.conv(double, f"{block}.branch3x3dbl_3a"),
            self.conv(double, f"{block}.branch3x3dbl_3b"),
            self.pooled(x, block, kind),
        )


def _pool(x, strides=2, padding="valid", kind="max"):
    # Averages at the border leave out what lies beyond it, as the FID's network does.
    pool = {"max": keras.ops.max_pool, "average": keras.ops.average_pool}[kind]
    return pool(x, 3, strides, padding, data_format="channels_last")


def _join(*branches):
    return keras.ops.concatenate(branches, axis=-1)


def _keras_inception():
    try:
        network = keras.applications.InceptionV3(classifier_activation=None)
    except ValueError:
        raise
    except Exception as error:  # Keras raises this very class
        raise OSError(
            f"Keras' Inception v3 could not be fetched: {error}. Give a weight file by "
            "its path."
        ) from error
    images = keras.Input((None, None, 3), dtype="float32")
    x = keras.ops.image.resize(
        images, (SIZE, SIZE), "bilinear", data_format="channels_last"
    )
    features = network.get_layer("avg_pool").output
    inner = keras.Model(network.input, {"features": features, "logits": network.output})
    return keras.Model(images, inner(x / 127.5 - 1.0))
