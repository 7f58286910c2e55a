"""Dropout and rematerialisation: the same numbers on every layout."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from test_mesh_parti import BATCH, CONFIG, make_ids, make_model

from keras_parti.mesh import Layout, MeshStep, from_keras
from keras_parti.mesh.compat import mtf, tf1
from keras_parti.mesh.noise import Noise

DROPPING = dataclasses.replace(
    CONFIG, decoder_layers=1, window_layers=None, dropout_rate=0.3
)


def draw(layout, step, rate=0.25, draws=2):
    """What `Noise` makes of ones `(4, 6, 10)`, drawn twice."""
    layout = Layout(*layout)
    with tf.Graph().as_default():
        graph = mtf.Graph()
        mesh = mtf.Mesh(graph, "mesh")
        names, shape = ("batch", "embed", "mlp"), (4, 6, 10)
        dims = [mtf.Dimension(*dim) for dim in zip(names, shape, strict=True)]
        ones = mtf.import_tf_tensor(mesh, np.ones(shape, "float32"), mtf.Shape(dims))
        noise = Noise(mesh, mtf.import_tf_tensor(mesh, tf.constant(step)))
        dropped = [noise.drop(ones, rate) for _ in range(draws)]
        implementation = mtf.placement_mesh_impl.PlacementMeshImpl(
            mtf.Shape([mtf.Dimension(*axis) for axis in layout.axes.items()]),
            mtf.convert_to_layout_rules(layout.splits.items()),
            ["cpu:0"] * layout.devices,
        )
        lowering = mtf.Lowering(graph, {mesh: implementation}, autostack=False)
        exported = [lowering.export_to_tf_tensor(x) for x in dropped]
        with tf1.Session() as session:
            return session.run(exported)


def test_the_same_elements_are_dropped_on_every_layout():
    one = draw(("", ""), step=3)
    for layout in [("a:2", "batch:a"), ("a:2;b:5", "embed:a;mlp:b"), ("a:2", "")]:
        np.testing.assert_array_equal(draw(layout, step=3), one)


def test_other_steps_and_other_draws_drop_other_elements():
    first, second = draw(("", ""), step=3)
    (later,) = draw(("", ""), step=4, draws=1)
    assert np.mean(first != second) > 0.1
    assert np.mean(first != later) > 0.1


def test_the_share_that_is_dropped_is_the_rate_and_the_mean_stays():
    values = np.array([draw(("", ""), step) for step in range(3)])
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    # 1440 draws: three standard deviations are 0.034.
    assert np.mean(values == 0) == pytest.approx(0.25, abs=0.034)


@pytest.mark.slow
def test_a_step_with_dropout_and_rematerialisation_is_that_of_one_device_without():
    weights, ids = from_keras(make_model(DROPPING)), make_ids(DROPPING)
    found = []
    for layout, rematerialise in [
        (("", ""), False),
        (("", ""), True),
        (("data:2;model:2", "two_d"), True),
    ]:
        step = MeshStep(DROPPING, Layout(*layout), BATCH, rematerialise=rematerialise)
        step.load(weights)
        test = step.evaluate(ids)["loss"]
        found.append([test, *(step.train(ids, 1e-3)["loss"] for _ in range(3))])
    np.testing.assert_allclose(found[1], found[0], rtol=2e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=2e-6)
    assert abs(found[0][0] - found[0][1]) > 1e-3


@pytest.mark.slow
def test_in_bfloat16_the_loss_is_near_that_of_float32():
    weights, ids = from_keras(make_model()), make_ids()
    losses = []
    for dtype in ("float32", "mixed_bfloat16"):
        step = MeshStep(CONFIG, Layout("a:2", "heads:a"), BATCH, dtype=dtype)
        step.load(weights)
        losses.append(step.train(ids, 1e-3)["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert losses[1] != losses[0]
