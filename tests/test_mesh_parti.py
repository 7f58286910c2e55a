"""A layout never changes the result: Parti on meshes equals Parti in Keras."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_parti.losses import TokenCrossEntropy
from keras_parti.mesh import Layout, MeshStep, from_keras, to_keras
from keras_parti.mesh.variables import variables_of
from keras_parti.models import Parti
from keras_parti.models.parti import PartiConfig
from keras_parti.optimizers import Adafactor

BATCH = 8
CONFIG = PartiConfig(
    encoder_layers=1,
    decoder_layers=2,
    dim=24,
    heads=4,
    mlp_dim=40,
    text_vocab_size=29,
    text_length=7,
    num_codes=23,
    num_tokens=25,
    attention_kernel=3,
    window_layers=(1,),
    dropout_rate=0.0,
    condition_dropout_rate=0.0,
)
# Building a graph and running it once takes three seconds of CPU for each device.
LAYOUTS = [
    ("", ""),
    *(
        pytest.param(layout, marks=pytest.mark.slow)
        for layout in [
            ("data:2", "data_parallel"),
            ("model:2", "model_parallel"),
            ("model:4", "model_parallel"),
            ("data:2;model:2", "two_d"),
            ("model:2;data:4", "two_d"),
            ("model:8", "mlp:model"),
            ("a:2;b:2", "batch:a;embed:b"),
            ("a:2;b:3", "kv:b;embed:a"),
            ("model:5", "length:model;mlp:model"),
        ]
    ),
]


def make_model(config=CONFIG):
    """A model whose weights are far from their start, where blocks are identities."""
    model = Parti(config)
    random = np.random.default_rng(3)
    for variable in model.trainable_variables:
        noise = random.normal(size=variable.shape) * 0.2
        variable.assign(noise + (variable.name == "gamma"))
    return model


def make_ids(config=CONFIG, batch=BATCH, seed=5):
    random = np.random.default_rng(seed)
    text_ids = random.integers(3, config.text_vocab_size, (batch, config.text_length))
    text_ids[::2, 4:] = 0
    image_ids = random.integers(0, config.num_codes, (batch, config.num_tokens))
    return {"text_ids": text_ids, "image_ids": image_ids}


def keras_gradients(model, ids):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        logits = model(ids)
        loss = TokenCrossEntropy()(ids["image_ids"], logits)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return float(loss), [np.array(tf.convert_to_tensor(g)) for g in gradients]


@pytest.fixture(scope="module")
def expected():
    model, ids = make_model(), make_ids()
    loss, gradients = keras_gradients(model, ids)
    logits = keras.ops.convert_to_numpy(model(ids))
    weights = from_keras(model)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign(gradient)
    return {
        "weights": weights,
        "ids": ids,
        "loss": loss,
        "logits": logits,
        "gradients": from_keras(model),
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: " ".join(x) or "one device")
def test_logits_loss_and_gradients_are_those_of_keras(layout, expected):
    step = MeshStep(CONFIG, Layout(*layout), BATCH)
    step.load(expected["weights"])
    ids = expected["ids"]
    np.testing.assert_allclose(step.logits(ids), expected["logits"], atol=2e-5)
    assert step.evaluate(ids)["loss"] == pytest.approx(expected["loss"], abs=2e-6)
    gradients = step.gradients(ids)
    for name, gradient in expected["gradients"].items():
        np.testing.assert_allclose(
            gradients[name], gradient, atol=2e-6, rtol=2e-4, err_msg=name
        )


def test_in_bfloat16_logits_are_not_rounded(expected):
    step = MeshStep(CONFIG, Layout("", ""), BATCH, dtype="mixed_bfloat16")
    bias = expected["weights"]["logits_bias/weight"]
    step.load(expected["weights"] | {"logits_bias/weight": np.zeros_like(bias)})
    logits = step.logits(expected["ids"])
    rounded = keras.ops.cast(keras.ops.cast(logits, "bfloat16"), "float32")
    assert np.mean(keras.ops.convert_to_numpy(rounded) != logits) > 0.9
    np.testing.assert_allclose(logits + bias, expected["logits"], atol=0.3)


def keras_steps(config, rates):
    """Losses and weights of steps with our Keras Adafactor."""
    model, losses = make_model(config), []
    optimizer = Adafactor(1.0)
    optimizer.exclude_from_weight_decay(
        [v for v in model.trainable_variables if len(v.shape) < 2]
    )
    for i, rate in enumerate(rates):
        loss, gradients = keras_gradients(model, make_ids(config, seed=i))
        losses.append(loss)
        optimizer.learning_rate = rate
        optimizer.apply(gradients, model.trainable_variables)
    return losses, from_keras(model)


RATES = [0.003, 0.004, 0.003, 0.002, 0.001]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: " ".join(x) or "one device")
def test_five_steps_of_adafactor_are_those_of_keras(layout):
    losses, expected = keras_steps(CONFIG, RATES)
    step = MeshStep(CONFIG, Layout(*layout), BATCH)
    step.load(from_keras(make_model()))
    found = [step.train(make_ids(seed=i), r)["loss"] for i, r in enumerate(RATES)]
    assert found == pytest.approx(losses, abs=2e-5)
    arrays = step.arrays()
    for variable in variables_of(CONFIG):
        name = variable.weight.name
        difference = np.abs(arrays[name] - expected[name])
        # The bias of keys moves all logits of a query alike: its gradient is rounding,
        # which Adafactor blows up to full size.
        learns = [not member.endswith("key/bias") for member in variable.members]
        difference = difference[learns]
        # A momentum at the border of two of its 255 levels may fall on either side.
        assert np.mean(difference > 2e-5) < 2e-3, name
        assert difference.max() < 2e-3, name


def test_weights_go_to_a_mesh_and_come_back():
    model, other = make_model(), Parti(CONFIG)
    step = MeshStep(CONFIG, Layout("a:2", "vocab:a;heads:a"), BATCH)
    step.load(from_keras(model), done=7)
    assert step.done == 7
    to_keras(step.arrays(), other)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_of_another_model_are_refused():
    arrays = from_keras(Parti(dataclasses.replace(CONFIG, mlp_dim=42)))
    with pytest.raises(ValueError, match=r"wide_kernel/weight` must be .*24, 40"):
        to_keras(arrays, make_model())
    with pytest.raises(ValueError, match="Received: None"):
        to_keras({}, make_model())


def test_devices_are_as_many_as_the_mesh_has():
    with pytest.raises(ValueError, match=r"mesh 'a:2' has, 2. Received: 1 devices"):
        MeshStep(CONFIG, Layout("a:2", "batch:a"), BATCH, devices=["cpu:0"])
