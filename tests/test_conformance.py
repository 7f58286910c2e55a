"""What every public layer promises, checked for every public layer.

A new layer needs one row in `CASES`; without it the last test fails. The file runs
on both backends: the last test but one starts it again, on JAX without TensorFlow.
"""

import inspect
import os
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from on_jax import run_on_jax

from keras_parti import layers

BATCH = 4
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
EXPECTED = os.environ.get("KERAS_PARTI_EXPECTED")  # a folder; see the last tests

needs_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's own")


class Case(NamedTuple):
    layer: type
    kwargs: dict  # every argument, none at its default
    inputs: dict  # name of the call argument: array, batch first
    num_weights: int


def wave(*shape):
    """Fixed numbers that no random generator can change between versions."""
    return np.sin(np.arange(np.prod(shape)), dtype="float32").reshape(shape)


def ids(*shape):
    return np.arange(np.prod(shape), dtype="int32").reshape(shape) % 11


def causal(*shape):
    return np.tril(np.ones(shape, "bool"))


ATTENTION = {"num_heads": 2, "dropout_rate": 0.3}
BLOCK = {
    "num_heads": 2,
    "mlp_dim": 7,
    "activation": "gelu",
    "dropout_rate": 0.3,
    "activation_dropout_rate": 0.2,
    "attention_dropout_rate": 0.1,
}
WINDOW = {"kernel_size": 3, "width": 5, "wraparound": False}
CASES = [
    Case(
        layers.AttentionalPooler,
        {"num_queries": 5, **ATTENTION},
        {"inputs": wave(BATCH, 3, 6)},
        9,
    ),
    Case(
        layers.ConditionDropout,
        {"rate": 0.3, "seed": 5},
        {"ids": ids(BATCH, 5)},
        0,
    ),
    Case(
        layers.DecoderBlock,
        {**BLOCK, **WINDOW},
        {
            "inputs": wave(BATCH, 15, 6),
            "memory": wave(BATCH, 7, 6),
            "memory_mask": causal(BATCH, 1, 15, 7),
        },
        26,
    ),
    Case(
        layers.DiscriminatorBlock, {"filters": 5}, {"inputs": wave(BATCH, 6, 10, 3)}, 5
    ),
    Case(
        layers.EncoderBlock,
        {**BLOCK, "norm_epsilon": 0.01},
        {"inputs": wave(BATCH, 3, 6), "attention_mask": causal(BATCH, 1, 3, 3)},
        16,
    ),
    Case(
        layers.EqualizedConv,
        {
            "filters": 5,
            "kernel_size": 1,
            "downsample": True,
            "activation": "linear",
            "use_bias": False,
        },
        {"inputs": wave(BATCH, 6, 10, 3)},
        1,
    ),
    Case(
        layers.EqualizedDense,
        {"units": 5, "activation": "leaky_relu"},
        {"inputs": wave(BATCH, 7)},
        2,
    ),
    Case(
        layers.FeedForward,
        {"mlp_dim": 7, "activation": "gelu", "dropout_rate": 0.3},
        {"inputs": wave(BATCH, 3, 5)},
        4,
    ),
    Case(
        layers.GridPositionEmbedding,
        {"rows": 2, "columns": 3},
        {"inputs": wave(BATCH, 5, 7)},
        2,
    ),
    Case(
        layers.ImageMixing,
        {"rate": 0.3, "seed": 5},
        {"ids": ids(BATCH, 5)},
        0,
    ),
    Case(
        layers.LogitsDense,
        {"units": 7, "backward_dtype": "bfloat16"},
        {"inputs": wave(BATCH, 3, 5)},
        2,
    ),
    Case(
        layers.MinibatchDeviation,
        {"group_size": 2},
        {"inputs": wave(BATCH, 3, 5, 2)},
        0,
    ),
    Case(
        layers.MultiHeadAttention,
        ATTENTION,
        {
            "inputs": wave(BATCH, 3, 6),
            "memory": wave(BATCH, 5, 6),
            "attention_mask": causal(BATCH, 1, 3, 5),
        },
        8,
    ),
    Case(
        layers.PatchEmbedding,
        {"patch_size": 2, "embed_dim": 7},
        {"images": wave(BATCH, 6, 10, 3)},
        2,
    ),
    Case(layers.PixelShuffle, {"scale": 2}, {"inputs": wave(BATCH, 3, 5, 12)}, 0),
    Case(
        layers.PositionEmbedding,
        {"length": 6, "grid": (2, 3)},
        {"inputs": wave(BATCH, 5, 8)},
        1,
    ),
    Case(
        layers.TanhHead,
        {"hidden_dim": 7, "output_dim": 2},
        {"inputs": wave(BATCH, 3, 5)},
        4,
    ),
    Case(
        layers.VectorQuantizer,
        {"num_codes": 11, "code_dim": 3, "commitment_cost": 0.5, "normalized": False},
        {"inputs": wave(BATCH, 5, 3)},
        1,
    ),
    Case(
        layers.WeightNormalizedConv,
        {"filters": 7, "kernel_size": 5, "gain": 0.5},
        {"inputs": wave(BATCH, 3, 5, 2)},
        3,
    ),
    Case(
        layers.WindowAttention,
        {**ATTENTION, **WINDOW},
        {"inputs": wave(BATCH, 15, 6)},
        8,
    ),
]

# Layers whose rows know of each other; their groups have tests of their own.
ACROSS_ROWS = {layers.MinibatchDeviation}

every_layer = pytest.mark.parametrize("case", CASES, ids=lambda c: c.layer.__name__)


def built(case, **kwargs):
    layer = case.layer(**case.kwargs, **kwargs)
    layer(**case.inputs)
    # Below 1, so that bfloat16's errors stay small through a whole block.
    layer.set_weights([0.3 * wave(*w.shape) for w in layer.get_weights()])
    return layer


def functional(case, layer):
    """The layer as a model whose batch size is unknown."""
    inputs = {
        name: keras.Input(x.shape[1:], dtype=str(x.dtype), name=name)
        for name, x in case.inputs.items()
    }
    return keras.Model(inputs, layer(**inputs))


def arrays(outputs):
    """Outputs by name, as float32 or int32 arrays."""
    if not isinstance(outputs, dict):
        outputs = {"outputs": outputs}
    return {
        name: ops.convert_to_numpy(
            ops.cast(x, "float32")
            if "float" in keras.backend.standardize_dtype(x.dtype)
            else x
        )
        for name, x in outputs.items()
    }


def assert_close(got, expected, **tolerance):
    got, expected = arrays(got), arrays(expected)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], err_msg=name, **tolerance)


@every_layer
def test_weights(case):
    assert len(built(case).weights) == case.num_weights


@every_layer
def test_config_is_exactly_the_constructor(case):
    parameters = inspect.signature(case.layer).parameters
    base = set(keras.layers.Layer().get_config())
    config = case.layer(**case.kwargs).get_config()
    assert set(config) - base == set(parameters) - {"kwargs"} == set(case.kwargs)
    for name, value in case.kwargs.items():
        assert config[name] == value != parameters[name].default


@every_layer
def test_layer_is_rebuilt_from_its_config(case):
    layer = built(case, name="mine", dtype="mixed_bfloat16")
    again = case.layer.from_config(layer.get_config())
    again(**case.inputs)
    assert again.get_config() == layer.get_config()
    assert [w.path for w in again.weights] == [w.path for w in layer.weights]


@every_layer
def test_round_trip_through_a_file(case, tmp_path):
    model = functional(case, built(case))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again(case.inputs), model(case.inputs), rtol=0, atol=0)


@every_layer
def test_shapes_and_types_are_known_before_the_call(case):
    layer = built(case)
    symbolic = functional(case, layer).output
    outputs = layer(**case.inputs)
    if not isinstance(outputs, dict):
        symbolic, outputs = {"": symbolic}, {"": outputs}
    for name, tensor in outputs.items():
        assert symbolic[name].shape == (None, *tensor.shape[1:])
        assert symbolic[name].dtype == keras.backend.standardize_dtype(tensor.dtype)


@every_layer
def test_a_row_does_not_depend_on_the_others(case):
    if case.layer in ACROSS_ROWS:
        pytest.skip("its rows do, in groups")
    layer = built(case)
    whole = arrays(layer(**case.inputs))
    for rows in (slice(0, 1), slice(1, 4)):
        part = layer(**{name: x[rows] for name, x in case.inputs.items()})
        expected = {name: x[rows] for name, x in whole.items()}
        assert_close(
            part, expected if len(whole) > 1 else expected["outputs"], atol=1e-5
        )


@every_layer
def test_batch_size_may_be_unknown_in_compiled_code(case):
    model = functional(case, built(case))
    model.compile(jit_compile=True)  # XLA, on either backend
    for batch in (1, 3):
        inputs = {name: x[:batch] for name, x in case.inputs.items()}
        assert_close(
            model.predict(inputs, verbose=0), model(inputs), rtol=1e-5, atol=1e-5
        )


@every_layer
def test_mixed_precision(case):
    full, mixed = built(case), built(case, dtype="mixed_bfloat16")
    outputs = mixed(**case.inputs)
    assert_close(outputs, full(**case.inputs), rtol=2e-2, atol=2e-2)
    for tensor in outputs.values() if isinstance(outputs, dict) else [outputs]:
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        assert dtype in ("bfloat16", "int32")
    assert {w.dtype for w in mixed.weights} <= {"float32"}


@needs_tensorflow
@every_layer
def test_one_graph_serves_all_batch_sizes(case):
    import tensorflow as tf

    layer = built(case)
    specs = {
        name: tf.TensorSpec((None, *x.shape[1:]), x.dtype)
        for name, x in case.inputs.items()
    }
    graph = tf.function(lambda **inputs: layer(**inputs)).get_concrete_function(**specs)
    for batch in (1, 3):
        inputs = {name: x[:batch] for name, x in case.inputs.items()}
        tensors = {name: tf.constant(x) for name, x in inputs.items()}
        assert_close(graph(**tensors), layer(**inputs), rtol=1e-5, atol=1e-5)


@needs_tensorflow
@every_layer
def test_same_on_two_replicas(case, two_replicas):
    import tensorflow as tf

    whole = built(case)(**case.inputs)
    with two_replicas.scope():
        layer = built(case)
    data = tf.data.Dataset.from_tensor_slices(case.inputs).batch(BATCH)
    halves = next(iter(two_replicas.experimental_distribute_dataset(data)))
    run = tf.function(lambda inputs: layer(**inputs))
    parts = tf.nest.map_structure(
        lambda t: tf.concat(two_replicas.experimental_local_results(t), 0),
        two_replicas.run(run, args=(halves,)),
    )
    assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not EXPECTED, reason="compares with the run that started this one")
@every_layer
def test_same_numbers_as_on_tensorflow(case):
    with np.load(Path(EXPECTED) / f"{case.layer.__name__}.npz") as expected:
        got = arrays(built(case)(**case.inputs))
        for name, value in got.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


@needs_tensorflow
@pytest.mark.slow
def test_all_of_this_on_jax_without_tensorflow(tmp_path):
    for case in CASES:
        outputs = arrays(built(case)(**case.inputs))
        np.savez(tmp_path / f"{case.layer.__name__}.npz", **outputs)
    run_on_jax(__file__, tmp_path)


def test_every_public_layer_has_a_case():
    public = {getattr(layers, name) for name in layers.__all__}
    assert {case.layer for case in CASES} == public
