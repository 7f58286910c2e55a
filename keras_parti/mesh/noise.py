"""Dropout that is the same on every mesh and layout.

A place of a tensor is kept or dropped by a hash of its indices, of the step, and of the
number of the dropout in the graph. Mesh-TensorFlow's own dropout draws for each slice:
another layout would train another model, and a rematerialised block would draw again.
"""

import tensorflow as tf

from keras_parti.mesh.compat import mtf


class Noise:
    """Draws for the dropouts of a graph, in the order in which they are built.

    Args:
        mesh: `mtf.Mesh`.
        step: `mtf.Tensor`, int32 scalar. Other steps draw other numbers.
    """

    def __init__(self, mesh, step):
        self.mesh, self.step, self.drawn = mesh, step, 0

    def drop(self, x, rate):
        """Returns x, a share of its elements 0 and the others larger to make up."""
        self.drawn += 1
        hashed = _mixed(self.step, self.drawn)
        dims = []
        for dim in x.shape.dims:
            dims.append(dim)
            indices = mtf.range(self.mesh, dim, tf.int32)
            hashed = mtf.add(hashed, indices, output_shape=mtf.Shape(dims))
            hashed = _mixed(hashed, len(dims))
        kept = mtf.cwise(
            lambda bits: tf.cast(_uniform(bits) >= rate, x.dtype) / (1 - rate),
            [hashed],
            output_dtype=x.dtype,
            grad_function=0,
        )
        return x * kept


def _mixed(x, number):
    return mtf.cwise(lambda bits: _mix(bits, number), [x], grad_function=0)


def _mix(bits, number):
    """The finaliser of MurmurHash3, of int32 bits plus a constant of `number`."""
    bits = tf.bitcast(bits, tf.uint32)
    bits += tf.constant(number * 0x9E3779B9 % 2**32, tf.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        bits = tf.bitwise.bitwise_xor(
            bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        )
        if factor:
            bits *= tf.constant(factor, tf.uint32)
    return tf.bitcast(bits, tf.int32)


def _uniform(bits):
    """Turns int32 bits into float32 in [0, 1)."""
    high = tf.bitwise.right_shift(
        tf.bitcast(bits, tf.uint32), tf.constant(8, tf.uint32)
    )
    return tf.cast(high, tf.float32) * 2.0**-24
