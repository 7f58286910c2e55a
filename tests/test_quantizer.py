"""The quantizer is the paper's: nearest code, two-sided loss, straight-through."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.layers import VectorQuantizer

CODES, DIM, BETA = 29, 5, 0.25

both = pytest.mark.parametrize("normalized", [True, False])


def vectors(*shape, phase=0.0):
    return np.sin(np.arange(np.prod(shape)) * 1.7 + phase).reshape(shape) * 2.0


def quantizer(normalized, **kwargs):
    layer = VectorQuantizer(CODES, DIM, BETA, normalized, **kwargs)
    layer.build((None, None, DIM))
    layer.codebook.assign(vectors(CODES, DIM, phase=0.5).astype("float32"))
    return layer


def as_used(x, normalized):
    return x / np.linalg.norm(x, axis=-1, keepdims=True) if normalized else x


def expected(z, codebook, normalized):
    """Ids, codes and loss of vectors, by all distances in float64."""
    z, codebook = as_used(z, normalized), as_used(codebook, normalized)
    distances = np.square(z[..., None, :] - codebook).sum(-1)
    ids = distances.argmin(-1)
    error = np.square(z - codebook[ids]).mean()
    return ids, codebook[ids], (1 + BETA) * error


@both
def test_each_vector_gets_its_nearest_code_and_the_loss_of_eq_3(normalized):
    layer = quantizer(normalized)
    z = vectors(2, 31, DIM)
    outputs = layer(z.astype("float32"))
    codebook = vectors(CODES, DIM, phase=0.5)
    ids, codes, loss = expected(z, codebook, normalized)
    assert len(set(ids.ravel())) > 10
    np.testing.assert_array_equal(outputs["ids"], ids)
    np.testing.assert_allclose(outputs["codes"], codes, atol=1e-6)
    np.testing.assert_allclose(layer.losses[0], loss, rtol=1e-5)
    np.testing.assert_array_equal(layer.nearest(z.astype("float32")), ids)
    np.testing.assert_allclose(layer.lookup(ids), codes, atol=1e-6)


def test_length_decides_only_where_nothing_is_normalized():
    layer = VectorQuantizer(2, 2, normalized=True)
    plain = VectorQuantizer(2, 2, normalized=False)
    for each in (layer, plain):
        each.build((None, None, 2))
        each.codebook.assign([[1.0, 0.0], [8.0, 8.0]])
    z = np.array([[[1.0, 0.9]]], "float32")  # towards (8, 8), but near (1, 0)
    assert ops.convert_to_numpy(layer.nearest(z)).tolist() == [[1]]
    assert ops.convert_to_numpy(plain.nearest(z)).tolist() == [[0]]


def test_gradients_are_those_of_the_two_terms_and_pass_straight_through():
    tf = pytest.importorskip("tensorflow")
    layer = quantizer(normalized=False)
    z = tf.constant(vectors(3, 7, DIM), tf.float32)
    weights = tf.constant(vectors(3, 7, DIM, phase=2.0), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        outputs = layer(z)
        loss = layer.losses[0]
        downstream = tf.reduce_sum(outputs["codes"] * weights)
    _, codes, _ = expected(z.numpy(), layer.codebook.numpy(), False)
    away = 2 * (z.numpy() - codes) / codes.size
    np.testing.assert_allclose(tape.gradient(loss, z), BETA * away, atol=1e-6)
    by_code = np.zeros((CODES, DIM))
    np.add.at(by_code, outputs["ids"].numpy(), -away)
    found = tf.convert_to_tensor(tape.gradient(loss, layer.codebook.value))
    np.testing.assert_allclose(found, by_code, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(downstream, z), weights)
    assert tape.gradient(downstream, layer.codebook.value) is None


@both
def test_a_quantizer_is_rebuilt_from_its_config(normalized):
    layer = quantizer(normalized)
    again = VectorQuantizer.from_config(layer.get_config())
    again.build((None, None, DIM))
    again.codebook.assign(layer.codebook)
    z = vectors(1, 13, DIM).astype("float32")
    np.testing.assert_array_equal(again.nearest(z), layer.nearest(z))


def test_a_config_of_before_the_choice_is_normalized():
    config = quantizer(True).get_config()
    del config["normalized"]
    assert VectorQuantizer.from_config(config).normalized


def test_plain_codes_keep_their_lengths_under_mixed_precision():
    layer = quantizer(False, dtype="mixed_bfloat16")
    ids = np.arange(CODES, dtype="int32")[None]
    np.testing.assert_array_equal(layer.lookup(ids)[0], layer.codebook)
    assert keras.backend.standardize_dtype(layer.lookup(ids).dtype) == "float32"


def test_a_vit_vqgan_passes_the_choice_on():
    from keras_parti.models import ViTVQGAN

    plain = ViTVQGAN.from_preset("vit_vqgan_tiny", normalized_codes=False)
    assert not plain.quantizer.normalized
    assert ViTVQGAN.from_preset("vit_vqgan_tiny").quantizer.normalized
