"""Rematerialised blocks: the same loss and gradients, from fewer kept activations."""

import keras
import numpy as np
import pytest
from far_weights import scatter
from keras import ops

from keras_parti.models import Parti

tf = pytest.importorskip("tensorflow")

INPUTS = {
    "text_ids": np.array([[2, 71, 5, 3, *[0] * 7], [2, *range(9, 18), 3]], "int32"),
    "image_ids": (np.arange(18).reshape(2, 9) * 5 % 23).astype("int32"),
}


def parti(**fields):
    fields |= {"condition_dropout_rate": 0.0, "attention_kernel": 3}
    return scatter(Parti.from_preset("parti_tiny", **fields))


def step(model):
    """A function of nothing: loss and gradients of a training step, compiled."""

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            logits = model(INPUTS, training=True)
            loss = ops.mean(ops.logsumexp(logits, axis=-1) - logits[..., 3])
        return [
            loss,
            *tape.gradient(loss, [v.value for v in model.trainable_variables]),
        ]

    return run


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_loss_and_gradients_are_those_of_the_plain_step():
    model = parti(dropout_rate=0.0)
    expected = step(model)()
    model.rematerialise = True
    assert_same(step(model)(), expected)


def test_both_passes_drop_alike_and_each_step_otherwise(monkeypatch):
    model = parti(dropout_rate=0.3)
    model.rematerialise = True
    before = [v.numpy() for v in model.non_trainable_variables]
    recomputed, again = step(model), step(model)
    first, second = recomputed(), again()
    assert abs(float(first[0]) - float(second[0])) > 1e-4
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    # The same draws, kept instead of made again.
    monkeypatch.setattr(keras, "remat", lambda function: function)
    assert_same(step(model)(), first)


def test_the_insides_of_a_block_are_computed_twice():
    def softmaxes(model):
        graph = step(model).get_concrete_function().graph
        return sum(op.type == "Softmax" for op in graph.get_operations())

    model = parti(dropout_rate=0.0)
    plain = softmaxes(model)
    model.rematerialise = True
    # One encoder block and two decoder blocks of two attentions each.
    assert plain == 5
    assert softmaxes(model) == 10


@pytest.mark.slow  # XLA compiles for half a minute
def test_a_model_is_fitted_so_by_a_compiled_step():
    model = parti(dropout_rate=0.1)
    model.rematerialise = True
    model.compile(
        keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    history = model.fit(INPUTS, INPUTS["image_ids"], epochs=9, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
