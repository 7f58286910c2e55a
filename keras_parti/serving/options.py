"""The options of drawing as inputs of a signature, of which each row has its own."""

import numpy as np
import tensorflow as tf

from keras_parti.serving.graph_inputs import graph_function

OPTIONS = {
    "seed": tf.int64,
    "guidance_scale": tf.float32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
}


def default_row(defaults):
    """Returns the options that a request of one row leaves out, as arrays `(1,)`.

    Args:
        defaults: dict of name to value, of all but the seed, which is 0.
    """
    values = {"seed": 0} | defaults
    return {n: np.array([values[n]], d.as_numpy_dtype) for n, d in OPTIONS.items()}


def draw_function(draw, first, defaults):
    """Makes a function a graph whose options need not be given.

    Args:
        draw: function of a tensor and a dict of `OPTIONS`' names to tensors.
        first: `tf.TensorSpec` of what is drawn, which must be given.
        defaults: as `default_row` takes them.
    """
    default = {n: tf.constant(row) for n, row in default_row(defaults).items()}

    # Only tensors, and only on a `tf.function`, become defaults of a signature. Their
    # names are inputs of the signature; a list of names would not do.
    def run(
        wanted,
        seed=default["seed"],
        guidance_scale=default["guidance_scale"],
        temperature=default["temperature"],
        top_k=default["top_k"],
        top_p=default["top_p"],
    ):
        columns = (seed, guidance_scale, temperature, top_k, top_p)
        return draw(wanted, dict(zip(OPTIONS, columns, strict=True)))

    options = (tf.TensorSpec([None], kind, name) for name, kind in OPTIONS.items())
    return graph_function(run, [first, *options])
