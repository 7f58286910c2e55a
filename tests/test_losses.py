"""The losses against their formulas in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.layers import VectorQuantizer
from keras_parti.losses import (
    LOSS_WEIGHTS,
    LogitLaplace,
    TokenCrossEntropy,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)


def wave(shape, low=0.0, high=1.0, phase=0.0):
    x = np.sin(np.arange(np.prod(shape)) * 1.7 + phase).reshape(shape)
    return ((x + 1) / 2 * (high - low) + low).astype("float32")


def logit_laplace(x, mean, log_scale, epsilon):
    """DALL-E, appendix A.3: −ln f(y | μ, b) of y = (1 − 2ε)·x + ε."""
    y = (1 - 2 * epsilon) * x.astype("float64") + epsilon
    b = np.exp(log_scale.astype("float64"))
    density = np.exp(-np.abs(np.log(y / (1 - y)) - mean) / b) / (2 * b * y * (1 - y))
    return -np.log(density)


def test_logit_laplace_is_its_formula():
    x, mean = wave((2, 3, 5, 3)), wave((2, 3, 5, 3), -2, 2, phase=1)
    log_scale = wave((2, 3, 5, 3), -1, 1, phase=2)
    expected = logit_laplace(x, mean, log_scale, 0.1).mean()
    loss = LogitLaplace()(x, np.concatenate([mean, log_scale], -1))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_density_of_logit_laplace_has_mass_one():
    y = (np.arange(200_000) + 0.5) / 200_000
    x = (y - 0.1) / 0.8
    density = np.exp(-logit_laplace(x, 0.7, np.float64(-0.3), 0.1))
    assert density.mean() == pytest.approx(1.0, abs=1e-4)


def test_the_gradient_of_logit_laplace_is_that_of_the_formula():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes gradients by TensorFlow")
    x, y_pred = wave((1, 2, 3, 3)), wave((1, 2, 3, 6), -1, 1, phase=1)
    prediction = tf.Variable(y_pred)
    with tf.GradientTape() as tape:
        loss = LogitLaplace()(x, prediction)
    gradient = tape.gradient(loss, prediction).numpy()
    log_odds = np.log((0.8 * x + 0.1) / (1 - (0.8 * x + 0.1)))
    error, b = log_odds - y_pred[..., :3], np.exp(y_pred[..., 3:])
    expected = np.concatenate([-np.sign(error) / b, 1 - np.abs(error) / b], -1)
    np.testing.assert_allclose(gradient, expected / x.size, atol=1e-6)


def test_below_the_floor_the_scale_is_the_floor():
    x, mean = wave((1, 2, 3, 3)), wave((1, 2, 3, 3), -2, 2, phase=1)
    low = np.concatenate([mean, np.full_like(mean, -7.0)], -1)
    at_floor = np.concatenate([mean, np.full_like(mean, -2.0)], -1)
    floored = LogitLaplace(log_scale_floor=-2.0)
    assert float(floored(x, low)) == pytest.approx(float(LogitLaplace()(x, at_floor)))
    assert float(floored(x, low)) != pytest.approx(float(LogitLaplace()(x, low)))


def test_below_the_floor_a_scale_can_rise_and_does_not_fall():
    """Its slope is that of the loss just above the floor where that leads upwards."""
    floored, floor, tiny = LogitLaplace(log_scale_floor=-2.0), -2.0, 1e-2
    x = wave((1, 2, 3, 3))
    log_odds = np.log((0.8 * x + 0.1) / (1 - (0.8 * x + 0.1)))
    for error, rises in ((0.9, True), (0.05, False)):  # beside b = 0.135

        def loss(log_scale, error=error):
            scales = np.full_like(x, log_scale)
            return np.concatenate([log_odds + error, scales], -1).astype("float32")

        after, before = (float(floored(x, loss(floor + s))) for s in (tiny, 0))
        upwards = (after - before) / tiny
        assert (upwards < 0) == rises
        found = slope(lambda y: floored(x, y), loss(floor - 3))[..., 3:].sum()
        assert found == pytest.approx(upwards if rises else 0.0, rel=2e-2)


def slope(function, *inputs, which=0):
    """The gradient of a scalar function by TensorFlow."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("takes gradients by TensorFlow")
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs[which])
        value = function(*inputs)
    return tape.gradient(value, inputs[which]).numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype("float64")))


def test_the_generator_wants_to_be_taken_for_true():
    fake = wave((7,), -4, 4)
    expected = -np.log(sigmoid(fake)).mean()
    assert float(generator_loss(fake)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        slope(generator_loss, fake), (sigmoid(fake) - 1) / 7, atol=1e-6
    )


def test_the_discriminator_wants_to_tell_true_from_generated():
    real, fake = wave((7,), -4, 4), wave((5,), -4, 4, phase=1)
    expected = -np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean()
    assert float(discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-5)
    gradient = slope(discriminator_loss, real, fake)
    np.testing.assert_allclose(gradient, (sigmoid(real) - 1) / 7, atol=1e-6)
    gradient = slope(discriminator_loss, real, fake, which=1)
    np.testing.assert_allclose(gradient, sigmoid(fake) / 5, atol=1e-6)


def test_adversarial_losses_stay_finite_far_from_the_border():
    far = np.array([-1e4, 1e4], "float32")
    assert float(generator_loss(far)) == pytest.approx(5e3)
    assert float(discriminator_loss(far, far)) == pytest.approx(1e4)


def test_r1_is_half_the_mean_of_squared_norms():
    slopes = wave((3, 5, 7, 2), -1, 1)
    expected = 0.5 * np.square(slopes).sum((1, 2, 3)).mean()
    assert float(r1_penalty(slopes)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(slope(r1_penalty, slopes), slopes / 3, rtol=1e-5)


def test_the_quantizer_weighs_commitment_by_beta():
    """‖sg[z] − e‖² + β‖z − sg[e]‖², and each half moves one of the two alone."""
    layer = VectorQuantizer(5, 3, commitment_cost=0.25)
    inputs, codes = wave((2, 7, 3), -1, 1), wave((5, 3), -1, 1, phase=2)
    layer.build(inputs.shape)
    layer.codebook.assign(codes)

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    z, e = unit(inputs), unit(codes)
    ids = (z @ e.T).argmax(-1)
    layer(inputs)
    distance = np.square(z - e[ids]).mean()
    assert float(layer.losses[0]) == pytest.approx(1.25 * distance, rel=1e-5)

    def loss(x):
        layer(x)
        return layer.losses[0]

    # Through the normalisation: the part across z, over its length.
    towards = 0.25 * 2 * (z - e[ids]) / z.size
    across = towards - (towards * z).sum(-1, keepdims=True) * z
    expected = across / np.linalg.norm(inputs, axis=-1, keepdims=True)
    np.testing.assert_allclose(slope(loss, inputs), expected, atol=1e-6)


def test_the_weights_are_the_papers():
    """L_VQ + 0.1 L_Adv + 0.1 L_Perceptual + 0.1 L_Logit-laplace + 1.0 L_2."""
    assert LOSS_WEIGHTS == {
        "l2": 1.0,
        "laplace": 0.1,
        "perceptual": 0.1,
        "adversarial": 0.1,
    }


def test_token_cross_entropy_is_the_mean_over_tokens():
    ids = np.array([[1, 0, 4], [2, 2, 3]], "int32")
    logits = wave((2, 3, 5), -3, 3)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(shares, ids[..., None], -1)).mean()
    loss = TokenCrossEntropy()(ids, ops.convert_to_tensor(logits))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_slope_of_cross_entropy_is_shares_less_what_was_right():
    ids = np.array([[1, 0, 4], [2, 2, 3]], "int32")
    # Shares of 1e-44 and less, beside ordinary ones: they must not become infinite.
    logits = wave((2, 3, 5), -3, 3)
    logits[1, 1] = [200.0, 100.0, 0.0, -100.0, 199.0]
    wide = logits.astype("float64")
    shares = np.exp(wide - wide.max(-1, keepdims=True))
    total = wide.max(-1) + np.log(shares.sum(-1))
    shares /= shares.sum(-1, keepdims=True)
    value = total - np.take_along_axis(wide, ids[..., None], -1)[..., 0]
    right = np.eye(5)[ids]
    logits = logits.astype("float32")
    loss = TokenCrossEntropy()
    assert float(loss(ids, ops.convert_to_tensor(logits))) == pytest.approx(
        value.mean(), rel=1e-6
    )
    found = slope(lambda x: loss(ids, x), logits)
    np.testing.assert_allclose(found, (shares - right) / 6, atol=1e-7)


def test_losses_are_rebuilt_from_their_config():
    loss = LogitLaplace(epsilon=0.2, log_scale_floor=-3.0)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert (again.epsilon, again.log_scale_floor) == (0.2, -3.0)


def test_an_impossible_epsilon_is_refused():
    with pytest.raises(ValueError, match=r"`epsilon` must be in \(0, 0\.5\)"):
        LogitLaplace(epsilon=0.5)
