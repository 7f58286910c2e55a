"""Sparse attention is the dense one with the mask: outputs and gradients."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.layers import MultiHeadAttention, WindowAttention, window_attention
from keras_parti.layers.window import conv_mask

HEADS, DIM = 2, 6


def wave(*shape):
    return np.sin(1.3 * np.arange(np.prod(shape)), dtype="float32").reshape(shape)


def pair(kernel, width, wraparound, length, **kwargs):
    """The sparse layer, and the dense one of the same weights."""
    sparse = WindowAttention(HEADS, kernel, width, wraparound, **kwargs)
    dense = MultiHeadAttention(HEADS, **kwargs)
    for layer in (sparse, dense):
        layer.build((None, length, DIM))
        layer.set_weights([wave(*w.shape) for w in layer.get_weights()])
    return sparse, dense


def outputs_and_gradients(layer, x, **kwargs):
    tf = pytest.importorskip("tensorflow")
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **kwargs)
        loss = tf.reduce_mean(y * wave(*y.shape))
    return [y, *tape.gradient(loss, [x, *[w.value for w in layer.weights]])]


@pytest.mark.parametrize("wraparound", [True, False])
@pytest.mark.parametrize(
    ("kernel", "height", "width", "block"),
    [
        (5, 7, 11, 11),  # a row a block
        (5, 7, 11, 35),  # three rows, which do not divide seven
        (3, 5, 13, 26),
        (11, 3, 5, 128),  # a kernel larger than the picture, in one block
        (7, 11, 3, 5),  # a window wider than a row
        (1, 3, 5, 5),
    ],
)
def test_sparse_is_dense_with_the_mask(
    kernel, height, width, block, wraparound, monkeypatch
):
    monkeypatch.setattr(window_attention, "BLOCK", block)
    sparse, dense = pair(kernel, width, wraparound, height * width)
    x = wave(3, height * width, DIM)
    mask = conv_mask(kernel, height, width, wraparound)
    expected = outputs_and_gradients(dense, x, attention_mask=mask)
    for got, value in zip(outputs_and_gradients(sparse, x), expected, strict=True):
        np.testing.assert_allclose(got, value, atol=1e-5)


def test_the_beginning_of_a_picture_is_attended_alike(monkeypatch):
    """A row that is not full yet: 25 of 77 positions."""
    monkeypatch.setattr(window_attention, "BLOCK", 22)
    sparse, _ = pair(5, 11, True, 77)
    x = wave(2, 77, DIM)
    whole, part = sparse(x), sparse(x[:, :25])
    np.testing.assert_allclose(part, whole[:, :25], atol=1e-6)


def test_keys_outside_the_slabs_cost_nothing(monkeypatch):
    """The largest tensor of a compiled step grows with the length, not its square."""
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(window_attention, "BLOCK", 22)

    def logits(height):
        layer, _ = pair(5, 11, True, 11 * height)
        step = tf.function(layer).get_concrete_function(
            tf.TensorSpec((1, 11 * height, DIM))
        )
        operations = step.graph.get_operations()
        shapes = [tensor.shape for op in operations for tensor in op.outputs]
        return sum(s.num_elements() for s in shapes if s.rank == 4 and s[-1] > DIM)

    small, middle, large = (logits(height) for height in (20, 40, 80))
    assert large - middle == 2 * (middle - small)


def test_a_window_in_bfloat16_is_near_the_one_in_float32(monkeypatch):
    monkeypatch.setattr(window_attention, "BLOCK", 22)
    full, _ = pair(5, 11, True, 77)
    half, _ = pair(5, 11, True, 77, dtype="mixed_bfloat16")
    x = 0.3 * wave(2, 77, DIM)
    assert keras.backend.standardize_dtype(half(x).dtype) == "bfloat16"
    np.testing.assert_allclose(ops.cast(half(x), "float32"), full(x), atol=0.05)


def test_weights_are_dropped_in_training_only():
    layer, _ = pair(5, 7, True, 35, dropout_rate=0.5)
    x = wave(1, 35, DIM)
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    changed = ops.convert_to_numpy(layer(x, training=True) != layer(x))
    # The first query sees itself alone: half of its weights are 0, half are doubled.
    assert changed.any(axis=-1).all()
