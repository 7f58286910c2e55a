"""What processors compute otherwise is the same: attention in parts, and GELU."""

import keras
import numpy as np
import pytest
from keras import ops

tf = pytest.importorskip("tensorflow")

from keras_parti.layers import MultiHeadAttention, attention, attention_parts  # noqa: E402
from keras_parti.layers.transformer import gelu  # noqa: E402

BATCH, HEADS, LENGTH, MEMORY, KV = 2, 6, 11, 7, 5
RNG = np.random.default_rng(0)
NEXT = np.tril(np.ones((LENGTH, MEMORY), bool))
PADDED = RNG.random((BATCH, 1, 1, MEMORY)) < 0.6
PADDED[..., 0] = True
MASKS = {
    "none": None,
    "of all": NEXT,
    "of rows": PADDED,
    "of rows and queries": PADDED & NEXT,
    "of heads": RNG.random((1, HEADS, LENGTH, MEMORY)) < 0.8,
}


def random(*shape):
    return tf.constant(RNG.normal(size=shape), "float32")


def slopes(function, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
        weights = tf.cast(np.cos(np.arange(outputs.shape.num_elements())), tf.float32)
        loss = tf.tensordot(tf.reshape(outputs, [-1]), weights, 1)
    return outputs, *tape.gradient(loss, inputs)


# Parts of one head, of two and of three, which 6 is a multiple of.
@pytest.mark.parametrize("part", [1, 2 * LENGTH * MEMORY, 5 * LENGTH * MEMORY])
@pytest.mark.parametrize("mask", MASKS)
def test_parts_give_the_result_and_slopes_of_the_whole(monkeypatch, mask, part):
    monkeypatch.setattr(attention_parts, "PART", part)
    mask = MASKS[mask]
    bias = None if mask is None else ops.where(mask, 0.0, attention.MASKED)
    shapes = [(BATCH, HEADS, n, KV) for n in (LENGTH, MEMORY, MEMORY)]
    inputs = [random(*shape) for shape in shapes]

    def whole(queries, keys, values):
        logits = tf.matmul(queries, keys, transpose_b=True)
        return tf.matmul(
            tf.nn.softmax(logits if bias is None else logits + bias), values
        )

    def parts(*inputs):
        return attention_parts.attend_in_parts(*inputs, bias)

    for graph in (False, True):
        run = tf.function(parts) if graph else parts
        for ours, theirs in zip(
            slopes(run, inputs), slopes(whole, inputs), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_in_bfloat16_weights_are_rounded_and_their_sums_are_not(monkeypatch):
    """Summed in bfloat16, 1,024 exponentials would give six times the error."""
    monkeypatch.setattr(attention_parts, "PART", 1)
    inputs = [tf.cast(random(1, 2, 1024, 8), "bfloat16") for _ in range(3)]
    wide = [tf.cast(x, "float32") for x in inputs]

    def attended(queries, keys, values, rounded):
        logits = rounded(tf.matmul(queries, keys, transpose_b=True))
        return tf.matmul(rounded(tf.nn.softmax(logits)), values)

    def error(outputs):
        return np.linalg.norm(tf.cast(outputs, "float32") - exact)

    exact = attended(*wide, lambda x: x)
    rounded = attended(*wide, lambda x: tf.cast(tf.cast(x, "bfloat16"), "float32"))
    ours = tf.function(attention_parts.attend_in_parts)(*inputs)
    # oneDNN's has the very error of rounding; TensorFlow's own up to twice that.
    assert 0 < error(ours) < 2.5 * error(tf.cast(rounded, "bfloat16"))


def test_a_layer_takes_parts_where_logits_are_many(monkeypatch):
    layer = MultiHeadAttention(num_heads=2)
    x = random(3, 8, 6)
    layer(x)
    for weight in layer.trainable_variables:
        weight.assign(random(*weight.shape))
    whole = layer(x)
    calls = []
    attend = attention.attend_in_parts
    monkeypatch.setattr(
        attention, "attend_in_parts", lambda *a: calls.append(1) or attend(*a)
    )
    monkeypatch.setattr(attention_parts, "PART", 2 * 8 * 8 - 1)
    np.testing.assert_allclose(layer(x), whole, atol=1e-5)
    assert len(calls) == 1
    # Which weights are dropped is drawn for all at once.
    dropping = MultiHeadAttention(num_heads=2, dropout_rate=0.5)
    dropping(x, training=True)
    assert len(calls) == 1


def test_gelu_and_its_slope_are_those_of_keras():
    x = tf.linspace(-6.0, 6.0, 101)
    exact = lambda x: keras.activations.gelu(x, approximate=False)  # noqa: E731
    for ours, theirs in zip(slopes(gelu, [x]), slopes(exact, [x]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    half = tf.cast(x, tf.bfloat16)
    # One rounding of a result that was computed in float32: half a unit of the last of
    # 8 significant bits, and the slopes that come in are rounded, too.
    ours = slopes(lambda x: tf.cast(gelu(x), tf.float32), [half])
    theirs = slopes(exact, [tf.cast(half, tf.float32)])
    assert ours[1].dtype == tf.bfloat16
    for found, wanted in zip(ours, theirs, strict=True):
        found = tf.cast(found, tf.float32)
        np.testing.assert_allclose(found, wanted, rtol=2.0**-7, atol=1e-6)
