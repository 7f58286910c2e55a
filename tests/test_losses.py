"""The losses against their formulas in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.losses import LogitLaplace, TokenCrossEntropy


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


def test_token_cross_entropy_is_the_mean_over_tokens():
    ids = np.array([[1, 0, 4], [2, 2, 3]], "int32")
    logits = wave((2, 3, 5), -3, 3)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(shares, ids[..., None], -1)).mean()
    loss = TokenCrossEntropy()(ids, ops.convert_to_tensor(logits))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_losses_are_rebuilt_from_their_config():
    loss = LogitLaplace(epsilon=0.2, log_scale_floor=-3.0)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert (again.epsilon, again.log_scale_floor) == (0.2, -3.0)


def test_an_impossible_epsilon_is_refused():
    with pytest.raises(ValueError, match=r"`epsilon` must be in \(0, 0\.5\)"):
        LogitLaplace(epsilon=0.5)
