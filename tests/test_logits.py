"""Logits are float32 in every model; only their gradients are computed in less."""

import keras
import ml_dtypes
import numpy as np
import pytest
from far_weights import scatter
from keras import ops
from on_jax import run_on_jax

from keras_parti.layers import LogitsDense
from keras_parti.layers.logits import largest
from keras_parti.models import VIM, CoCa, Parti, TextEncoder

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# Of each model its preset, fields, last norm and layer of logits.
MODELS = {
    "Parti": (Parti, "parti_tiny", {}, "decoder_norm", "logits"),
    "tied": (Parti, "parti_tiny", {"tie_embeddings": True}, "decoder_norm", "logits"),
    "VIM": (VIM, "vim_tiny", {}, "norm", "logits"),
    "TextEncoder": (TextEncoder, "parti_tiny", {}, "encoder_norm", "tokens"),
    "CoCa": (CoCa, "coca_tiny", {}, "multimodal_norm", "tokens"),
}
X = np.sin(np.arange(3 * 5 * 11, dtype="float32")).reshape(3, 5, 11)
UPSTREAM = np.cos(np.arange(3 * 5 * 7, dtype="float32") ** 2).reshape(3, 5, 7)


def rounded(array):
    return np.asarray(array, ml_dtypes.bfloat16).astype("float32")


def scattered(kind, preset, fields, dtype):
    return scatter(kind.from_preset(preset, dtype=dtype, **fields))


def built(layer):
    layer.build(X.shape)
    layer.kernel.assign(np.sin(np.arange(77.0) ** 2).reshape(11, 7))
    layer.bias.assign(np.arange(7.0))
    return layer


def outputs_and_gradients(layer):
    """Returns outputs and the gradients of the inputs, the kernel and the bias."""

    def weighted(x, kernel, bias):
        outputs, _ = layer.stateless_call([kernel, bias], [], x)
        return ops.sum(outputs * UPSTREAM)

    values = [ops.convert_to_tensor(np.array(v)) for v in (X, layer.kernel, layer.bias)]
    if ON_TENSORFLOW:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = weighted(*values)
        gradients = tape.gradient(loss, values)
    else:
        import jax

        gradients = jax.grad(weighted, argnums=(0, 1, 2))(*values)
    return [ops.convert_to_numpy(t) for t in (layer(X), *gradients)]


@pytest.mark.parametrize("backward_dtype", [None, "float32"])
def test_in_float32_it_is_a_dense_layer(backward_dtype):
    ours = outputs_and_gradients(built(LogitsDense(7, backward_dtype)))
    theirs = outputs_and_gradients(built(keras.layers.Dense(7)))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_are_products_of_what_was_rounded():
    layer = built(LogitsDense(7, "bfloat16"))
    plain = outputs_and_gradients(built(keras.layers.Dense(7)))
    outputs, of_x, of_kernel, of_bias = outputs_and_gradients(layer)
    np.testing.assert_array_equal(outputs, plain[0])
    np.testing.assert_array_equal(of_bias, plain[3])
    x, kernel, upstream = map(rounded, (X, layer.kernel, UPSTREAM))
    # The sums are rounded once more, by 1 part in 256 at most.
    np.testing.assert_allclose(of_x, upstream @ kernel.T, rtol=1 / 256, atol=1e-5)
    expected = np.einsum("bld,blv->dv", x, upstream)
    np.testing.assert_allclose(of_kernel, expected, rtol=1 / 256, atol=1e-5)
    for low, full in zip((of_x, of_kernel), plain[1:3], strict=True):
        assert low.dtype == full.dtype == np.float32
        np.testing.assert_allclose(low, full, atol=2e-2 * np.abs(full).max())
        assert np.abs(low - full).max() > 0
        np.testing.assert_array_equal(low, rounded(low))


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_a_bfloat16_model_are_not_rounded(name):
    """What the blocks return is; from there on the model is the float32 one."""
    *what, norm, dense = MODELS[name]
    found = []
    for dtype in ("float32", "mixed_bfloat16"):
        model = scattered(*what, dtype)
        norm_of, dense_of = getattr(model, norm), getattr(model, dense)
        x = rounded(np.sin(np.arange(2 * 9 * 16)).reshape(2, 9, 16))
        x = ops.cast(x, model.compute_dtype)
        logits = dense_of(norm_of(ops.cast(x, "float32")))
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        found.append(ops.convert_to_numpy(logits))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-5)
    assert np.mean(found[1] == rounded(found[1])) < 0.1
    if hasattr(model, "predict_logits"):
        np.testing.assert_array_equal(model.predict_logits(x), found[1])


def test_a_bfloat16_model_learns_what_a_float32_one_does():
    """The gradients that reach the blocks below are close, and float32's own kept."""
    ids = (np.arange(18).reshape(2, 9) * 5 % 23).astype("int32")
    inputs = {"text_ids": np.int32([[2, 7, 3, *[0] * 8]] * 2), "image_ids": ids}
    moved = []
    for dtype in ("float32", "mixed_bfloat16"):
        model = scattered(Parti, "parti_tiny", {"dropout_rate": 0.0}, dtype)
        model.condition_dropout.rate = 0.0
        before = model.get_weights()
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        model.train_on_batch(inputs, ids)
        pairs = zip(model.get_weights(), before, strict=True)
        moved.append(np.concatenate([(a - b).ravel() for a, b in pairs]))
    full, mixed = moved
    share = full @ mixed / np.linalg.norm(full) / np.linalg.norm(mixed)
    assert share > 0.99


def test_the_largest_is_the_first_of_equal_ones():
    logits = np.float32([[1, 3, 3, 2], [-1, -5, -1, -1], [-np.inf, 0, 7, np.inf]])
    places = largest(ops.convert_to_tensor(np.stack([logits, -logits])))
    assert keras.backend.standardize_dtype(places.dtype) == "int32"
    np.testing.assert_array_equal(places, [[1, 0, 3], [0, 1, 0]])


@pytest.mark.skipif(not ON_TENSORFLOW, reason="starts the file again, on JAX")
@pytest.mark.slow
def test_all_of_this_on_jax_without_tensorflow(tmp_path):
    run_on_jax(__file__, tmp_path)
