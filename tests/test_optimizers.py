"""Adafactor = its equations in NumPy, two replicas = one device, the schedules."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_parti.optimizers import Adafactor, AdamW, WarmupExponential, quantize

SHAPES = [(), (7,), (5, 3), (2, 5, 3)]


def wave(*shape, speed=1.0):
    return np.sin(speed * (1 + np.arange(np.prod(shape)))).reshape(shape)


def gradients(step):
    """Small and large, with a row, a column and a whole step of zeros."""
    found = [(10.0 ** (step - 2)) * wave(*s, speed=1 + step) for s in SHAPES]
    found[2][1], found[2][:, 2] = 0, 0
    return [np.float32(0 * g if step == 3 else g) for g in found]


def rounded(m):
    """Momentum as 255 levels a column, and back: plain loops."""
    out = np.zeros_like(m)
    for place in np.ndindex(m.shape[1:]):
        column = m[(slice(None), *place)]
        scale = np.abs(column).max() / 127
        if scale:
            levels = np.rint(column / scale)
            assert np.abs(levels).max() == 127
            out[(slice(None), *place)] = levels * scale
    return out


def adafactor(weights, steps, rate, decay, clip, norm_limit, beta_1=0.9, beta_2=0.96):
    """The docstring's equations in float64; V of a matrix is written out in full."""
    weights = [w.astype("float64") for w in weights]
    momenta = [np.zeros_like(w) for w in weights]
    rows, columns, full = ({} for _ in range(3))
    for t in range(1, steps + 1):
        gs = [g.astype("float64") for g in gradients(t - 1)]
        norm = np.sqrt(sum((g**2).sum() for g in gs))
        gs = [g * min(1, norm_limit / max(norm, 1e-300)) for g in gs]
        d = beta_2 * (1 - beta_2 ** (t - 1)) / (1 - beta_2**t)
        for i, (w, g) in enumerate(zip(weights, gs, strict=True)):
            square = g**2 + 1e-30
            if g.ndim > 1:
                rows[i] = d * rows.get(i, 0) + (1 - d) * square.mean(-1)
                columns[i] = d * columns.get(i, 0) + (1 - d) * square.mean(-2)
                v = np.einsum("...r,...c->...rc", rows[i], columns[i])
                v /= rows[i].mean(-1)[..., None, None]
            else:
                v = full[i] = d * full.get(i, 0) + (1 - d) * square
            update = g / np.sqrt(v)
            update /= max(1, np.sqrt((update**2).mean()) / clip)
            m = beta_1 * momenta[i] + (1 - beta_1) * rate * update
            weights[i] = w - m - (rate * decay * w if w.ndim > 1 else 0)
            momenta[i] = rounded(m) if m.ndim else m
    return weights


def test_adafactor_is_its_equations_step_by_step():
    """Factored and not, clipped and not, quantised momentum, excluded from decay."""
    start = [np.float32(wave(*shape, speed=0.7)) for shape in SHAPES]
    variables = [keras.Variable(w) for w in start]
    optimizer = Adafactor(
        0.03, clipping_threshold=0.9, weight_decay=0.2, global_clipnorm=3.0
    )
    optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    for step in range(6):
        optimizer.apply(
            [keras.ops.convert_to_tensor(g) for g in gradients(step)], variables
        )
        expected = adafactor(start, step + 1, 0.03, 0.2, 0.9, 3.0)
        for variable, value in zip(variables, expected, strict=True):
            np.testing.assert_allclose(variable, value, rtol=2e-6, atol=2e-6)


def test_momentum_is_kept_in_one_byte():
    values = np.float32(wave(11, 3) * [1.0, 0.0, 1e-6])
    levels, scales = map(keras.ops.convert_to_numpy, quantize(values))
    assert levels.dtype == np.int8
    assert levels.min() >= -127
    np.testing.assert_array_equal(np.abs(levels).max(0), [127, 0, 127])
    assert (np.abs(levels * scales - values) <= 0.501 * scales).all()


def test_slots_are_an_eighth_of_those_of_adam():
    matrix = keras.Variable(np.zeros((1024, 4096), "float32"))
    bytes_of = {}
    for optimizer in (Adafactor(), AdamW(1e-3)):
        optimizer.build([matrix])
        slots = [v for v in optimizer.variables if len(v.shape)]
        bytes_of[type(optimizer)] = sum(
            np.dtype(v.dtype).itemsize * np.prod(v.shape) for v in slots
        )
    # Momentum; its scales and the column means; the row means.
    assert bytes_of[Adafactor] == 1024 * 4096 + 2 * 4 * 4096 + 4 * 1024
    assert bytes_of[Adafactor] < 0.127 * bytes_of[AdamW]


def test_a_config_makes_the_same_optimizer():
    one = Adafactor(WarmupExponential(), 0.8, 0.9, 0.7, 0.1, 2.0, use_ema=True)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(one))
    assert again.get_config() == one.get_config()


@pytest.mark.parametrize("kind", [AdamW, Adafactor])
def test_what_is_built_again_is_as_it_was(kind):
    """A run that goes on builds its optimiser before Keras does."""
    optimizer, weights = kind(1e-3), [keras.Variable(wave(3, 5), name="w")]
    optimizer.build(weights)
    before = [id(v) for v in optimizer.variables]
    optimizer.build(weights)
    assert [id(v) for v in optimizer.variables] == before


@pytest.mark.parametrize("betas", [(1.0, 0.9), (-0.1, 0.9), (0.9, 0.0), (0.9, 1.0)])
def test_betas_out_of_range_are_refused(betas):
    with pytest.raises(ValueError, match=r"`beta_1` must be in \[0, 1\)"):
        Adafactor(1e-3, *betas)


def test_the_schedule_is_the_papers():
    rate = WarmupExponential()
    for step in (85_000, 100_000, 449_999):
        expected = 4.5e-5 * np.exp(np.log(0.025) * (step - 85_000) / 365_000)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
    assert float(rate(2_500)) == pytest.approx(2.25e-5)
    with pytest.raises(ValueError, match=r"follow each other\. Received: 5, 4, 9"):
        WarmupExponential(warmup_steps=5, decay_start=4, decay_end=9)


def fit(optimizer, dtype="float32", steps=6, batch=4, seed=0):
    """Trains an embedding, a matrix and a bias; ids come twice in a batch."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(5, 7, dtype=dtype)(inputs)
    x = keras.layers.Dense(2, dtype=dtype)(x)
    model = keras.Model(inputs, x)
    model.compile(optimizer, loss="mse", jit_compile=False)
    ids = np.arange(steps * batch * 3).reshape(-1, 3) % 5
    targets = np.float32(9 * wave(steps * batch, 3, 2))
    model.fit(ids, targets, batch_size=batch, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("optimizer", [Adafactor, AdamW])
def test_two_replicas_learn_what_one_device_learns(optimizer, two_replicas):
    """Clipped gradients, averages of the weights and the recorded norm included."""
    import tensorflow as tf

    found = []
    for strategy in (tf.distribute.OneDeviceStrategy("/cpu:0"), two_replicas):
        with strategy.scope():
            # ε as large as the gradients: else Adam hides their scale.
            kwargs = {"epsilon": 1.0} if optimizer is AdamW else {}
            one = optimizer(
                0.05, global_clipnorm=0.1, use_ema=True, ema_momentum=0.5, **kwargs
            )
            model = fit(one)
        found.append([*model.get_weights(), np.array(one.gradient_norm)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert found[0][-1] > 0.2


def test_the_norm_is_that_of_the_dense_gradient():
    """An id that comes twice adds up to one row."""
    optimizer = AdamW(0.0)
    model = fit(optimizer, steps=1)
    ids, targets = np.arange(12).reshape(4, 3) % 5, 9 * wave(4, 3, 2)
    table, kernel, bias = (w.astype("float64") for w in model.get_weights())
    error = 2 * (table[ids] @ kernel + bias - targets) / targets.size
    rows = np.zeros_like(table)
    np.add.at(rows, ids, error @ kernel.T)
    parts = [rows, np.einsum("bli,blo->io", table[ids], error), error.sum((0, 1))]
    expected = np.sqrt(sum((part**2).sum() for part in parts))
    np.testing.assert_allclose(np.array(optimizer.gradient_norm), expected, rtol=1e-5)


def test_accumulated_batches_are_one_large_batch():
    split = fit(Adafactor(0.05, gradient_accumulation_steps=2), batch=4, steps=6)
    whole = fit(Adafactor(0.05), batch=8, steps=3)
    for a, b in zip(split.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_mixed_precision_learns_nearly_the_same():
    full, mixed = (fit(Adafactor(0.05), d) for d in ("float32", "mixed_bfloat16"))
    for a, b in zip(full.get_weights(), mixed.get_weights(), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=0.05)


@pytest.mark.slow
def test_all_but_replicas_hold_on_jax():
    script = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "-q", "-k", "not replicas", __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
