"""What every public model promises, checked for every public model.

A new model needs one row in `CASES`; without it the last test fails. The file runs on
both backends: the last test but one starts it again, on JAX without TensorFlow.
"""

import os
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from on_jax import run_on_jax

from keras_parti import models
from keras_parti.losses import TokenCrossEntropy
from keras_parti.models.base import ConfigModel

BATCH = 4
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
EXPECTED = os.environ.get("KERAS_PARTI_EXPECTED")  # a folder; see the last tests

needs_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's own")


class Case(NamedTuple):
    model: type
    preset: str
    overrides: dict
    inputs: dict | np.ndarray  # batch first
    # A loss of each row alone and its targets, or None where rows know of each other.
    fit: tuple | None = None
    bfloat16: float | None = 5e-2  # tolerance against float32


def wave(*shape):
    """Fixed numbers that no random generator can change between versions."""
    return np.sin(np.arange(np.prod(shape)), dtype="float32").reshape(shape)


def ids(count, *shape):
    return np.arange(np.prod(shape), dtype="int32").reshape(shape) * 7 % count


def texts(length):
    """A row of each length: bos, pieces, eos, padding."""
    rows = np.zeros((BATCH, length), "int32")
    for row, pieces in enumerate((0, 2, 5, length - 2)):
        rows[row, : pieces + 2] = [2, *(4 + ids(200, pieces) + row), 3]
    return rows


IMAGES = 0.5 + 0.5 * wave(BATCH, 12, 12, 3)
IDS = ids(23, BATCH, 9)
TOKENS = (TokenCrossEntropy, IDS)

CASES = [
    Case(
        models.ViTVQGAN,
        "vit_vqgan_tiny",
        {"output": "rgb"},
        IMAGES,
        # Which of two codes is nearer may change: a test of its own.
        bfloat16=None,
    ),
    Case(
        models.Parti,
        "parti_tiny",
        {"dropout_rate": 0.0, "condition_dropout_rate": 0.0, "attention_kernel": 3},
        {"text_ids": texts(11), "image_ids": IDS},
        TOKENS,
    ),
    Case(
        models.VIM,
        "vim_tiny",
        {"dropout_rate": 0.0},
        {"labels": ids(6, BATCH), "image_ids": IDS},
        TOKENS,
    ),
    Case(
        models.TextEncoder,
        "parti_tiny",
        {"dropout_rate": 0.0, "embedding_dim": 13},
        {"text_ids": texts(11), "image_ids": IDS},
    ),
    Case(
        models.CoCa,
        "coca_tiny",
        {"heads": 4},
        {"images": IMAGES, "text_ids": texts(11)},
    ),
    Case(
        models.Discriminator,
        "discriminator_tiny",
        {"group_size": 4},
        IMAGES,
    ),
    Case(models.WDSR, "wdsr_tiny", {"block": "b"}, IMAGES),
]

# Models whose rows know of each other; their groups have tests of their own.
ACROSS_ROWS = {models.Discriminator}

every_model = pytest.mark.parametrize("case", CASES, ids=lambda c: c.model.__name__)


def built(case, **kwargs):
    model = case.model.from_preset(case.preset, **case.overrides, **kwargs)
    # Far from their start, where residual branches add next to nothing.
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(0.3 * wave(*variable.shape))
    return model


def rows(inputs, chosen):
    return keras.tree.map_structure(lambda x: x[chosen], inputs)


def arrays(outputs):
    """Outputs by name, as float32 or integer arrays."""
    if not isinstance(outputs, dict):
        outputs = {"outputs": outputs}
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def assert_close(got, expected, **tolerance):
    got, expected = arrays(got), arrays(expected)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            np.asarray(got[name], "float32"),
            np.asarray(expected[name], "float32"),
            err_msg=name,
            **tolerance,
        )


@every_model
def test_a_folder_holds_the_whole_model(case, tmp_path):
    model = built(case)
    model.save_dir(tmp_path)
    again = case.model.load_dir(tmp_path)
    assert again.config == model.config
    assert_close(again(case.inputs), model(case.inputs), rtol=0, atol=0)


@every_model
def test_a_model_is_rebuilt_from_its_config(case):
    model = built(case, dtype="mixed_bfloat16")
    again = case.model.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [w.path for w in again.weights] == [w.path for w in model.weights]


@every_model
def test_a_keras_file_holds_the_whole_model(case, tmp_path):
    model = built(case)
    outputs = model(case.inputs)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.get_config() == model.get_config()
    assert_close(again(case.inputs), outputs, rtol=0, atol=0)


@every_model
def test_a_file_of_weights_holds_all_of_them(case, tmp_path):
    model = built(case)
    model.save_weights(tmp_path / "model.weights.h5")
    again = case.model(model.config)
    again.load_weights(tmp_path / "model.weights.h5")
    assert_close(again(case.inputs), model(case.inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.fit], ids=lambda c: c.model.__name__
)
def test_training_goes_on_from_a_keras_file(case, tmp_path):
    loss, targets = case.fit
    model = built(case)
    model.compile(keras.optimizers.Adam(0.1), loss=loss(), run_eagerly=ON_TENSORFLOW)
    model.train_on_batch(case.inputs, targets)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    for _ in range(2):
        expected = model.train_on_batch(case.inputs, targets)
        got = again.train_on_batch(case.inputs, targets)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert int(again.optimizer.iterations) == 3


@every_model
def test_a_row_does_not_depend_on_the_others(case):
    if case.model in ACROSS_ROWS:
        pytest.skip("its rows do, in groups")
    model = built(case)
    whole = arrays(model(case.inputs))
    for chosen in (slice(0, 1), slice(1, 4)):
        part = arrays(model(rows(case.inputs, chosen)))
        assert_close(part, {n: x[chosen] for n, x in whole.items()}, atol=1e-5)


@every_model
def test_compiled_code_gives_the_same(case):
    model = built(case)
    expected = model(case.inputs)
    model.compile(jit_compile=True)  # XLA, on either backend
    got = model.predict(case.inputs, batch_size=BATCH, verbose=0)
    assert_close(got, expected, rtol=1e-4, atol=1e-4)


@every_model
def test_mixed_precision(case):
    if case.bfloat16 is None:
        pytest.skip("has a test of its own")
    full, mixed = built(case), built(case, dtype="mixed_bfloat16")
    got, expected = arrays(mixed(case.inputs)), arrays(full(case.inputs))
    for name, value in expected.items():
        scale = np.abs(value).max()
        assert_close(got[name], value, atol=case.bfloat16 * scale, rtol=0)
        assert np.abs(got[name] - value).max() > 0, "nothing was rounded"
    assert {w.dtype for w in mixed.trainable_weights} <= {"float32"}


@needs_tensorflow
@pytest.mark.parametrize(
    "case", [c for c in CASES if c.fit], ids=lambda c: c.model.__name__
)
def test_two_replicas_learn_what_one_device_learns(case, two_replicas):
    """With SGD, since Adam hides a wrong scale of the gradients."""
    import tensorflow as tf

    loss, targets = case.fit

    def trained(strategy):
        with strategy.scope():
            model = built(case)
            model.compile(keras.optimizers.SGD(0.1), loss=loss(), jit_compile=False)
        history = model.fit(case.inputs, targets, BATCH, 2, shuffle=False, verbose=0)
        return model.get_weights(), history.history["loss"]

    one, loss_of_one = trained(tf.distribute.OneDeviceStrategy("/cpu:0"))
    two, loss_of_two = trained(two_replicas)
    np.testing.assert_allclose(loss_of_two, loss_of_one, rtol=1e-5)
    for a, b in zip(two, one, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.skipif(not EXPECTED, reason="compares with the run that started this one")
@every_model
def test_same_numbers_as_on_tensorflow(case):
    with np.load(Path(EXPECTED) / f"{case.model.__name__}.npz") as expected:
        got = arrays(built(case)(case.inputs))
        assert_close(got, dict(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not EXPECTED, reason="reads what another process has written")
@every_model
def test_files_of_tensorflow_are_read_in_a_fresh_process(case):
    path = Path(EXPECTED) / case.model.__name__
    model = keras.models.load_model(path.with_suffix(".keras"), safe_mode=True)
    again = case.model.from_preset(case.preset, **case.overrides)
    again.load_weights(path.with_suffix(".weights.h5"))
    with np.load(path.with_suffix(".npz")) as expected:
        for read in (model, again):
            got = arrays(read(case.inputs))
            assert_close(got, dict(expected), rtol=1e-4, atol=1e-4)


@needs_tensorflow
@pytest.mark.slow
def test_all_of_this_on_jax_without_tensorflow(tmp_path):
    for case in CASES:
        model, path = built(case), tmp_path / case.model.__name__
        np.savez(path.with_suffix(".npz"), **arrays(model(case.inputs)))
        model.save(path.with_suffix(".keras"))
        model.save_weights(path.with_suffix(".weights.h5"))
    run_on_jax(__file__, tmp_path)


def test_every_public_model_has_a_case():
    public = {
        value
        for value in (getattr(models, name) for name in models.__all__)
        if isinstance(value, type) and issubclass(value, ConfigModel)
    }
    assert {ConfigModel, *(case.model for case in CASES)} == public
