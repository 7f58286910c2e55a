"""Writes what tensorflow-addons' `WeightNormalization` does, to compare ours with.

tensorflow-addons ended in 2024 and cannot be imported beside the TensorFlow of this
library, so that it runs in an environment of its own:

    python3.11 -m venv build/addons
    build/addons/bin/pip install -r tests/goldens/weight_normalization/requirements.txt
    build/addons/bin/python tests/goldens/weight_normalization/make.py

For a kernel of 3×3 and one of 1×1: outputs, gradients of a weighted sum of the outputs,
one step of Adam, and the weights that the first call makes of a batch.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

HERE = Path(__file__).parent
FILTERS = 5


def wave(*shape, phase=0.0):
    """Fixed numbers that no random generator can change between versions."""
    return np.sin(np.arange(np.prod(shape)) + phase).astype("float32").reshape(shape)


def wrapped(v, bias, data_init):
    """A normalised convolution with the weights that are given."""
    conv = tf.keras.layers.Conv2D(
        FILTERS,
        v.shape[0],
        padding="same",
        kernel_initializer=tf.keras.initializers.Constant(v),
        bias_initializer=tf.keras.initializers.Constant(bias),
    )
    return tfa.layers.WeightNormalization(conv, data_init=data_init)


def golden(side):
    """All arrays of one size of kernel, by name."""
    inputs = wave(2, 7, 6, 3)
    v, g, bias = (
        wave(side, side, 3, FILTERS, phase=1),
        1.5 + wave(FILTERS),
        wave(FILTERS),
    )
    weights = wave(2, 7, 6, FILTERS, phase=2)
    layer = wrapped(v, bias, data_init=False)
    layer(inputs)
    found = {"inputs": inputs, "v": v, "bias": bias, "norm": layer.g.numpy()}
    layer.g.assign(g)
    variables = [layer.v, layer.g, layer.layer.bias]
    with tf.GradientTape() as tape:
        outputs = layer(inputs)
        loss = tf.reduce_sum(weights * outputs)
    gradients = tape.gradient(loss, variables)
    found |= {"g": g, "outputs": outputs.numpy(), "loss_weights": weights}
    names = ("v", "g", "bias")
    for name, gradient in zip(names, gradients, strict=True):
        found[f"gradient_{name}"] = gradient.numpy()
    tf.keras.optimizers.Adam(0.01).apply_gradients(
        zip(gradients, variables, strict=True)
    )
    for name, variable in zip(names, variables, strict=True):
        found[f"step_{name}"] = variable.numpy()
    found["step_outputs"] = layer(inputs).numpy()

    layer = wrapped(v, np.zeros(FILTERS, "float32"), data_init=True)
    found["data_outputs"] = layer(inputs).numpy()
    found["data_g"] = layer.g.numpy()
    found["data_bias"] = layer.layer.bias.numpy()
    return found


def main():
    """Writes one file for each size of kernel."""
    for side in (1, 3):
        np.savez_compressed(HERE / f"kernel_{side}.npz", **golden(side))
    print(f"tensorflow {tf.__version__}, tensorflow-addons {tfa.__version__}")


if __name__ == "__main__":
    main()
