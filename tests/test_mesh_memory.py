"""The plan's memory beside what TensorFlow really allocates in a step on a mesh."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from keras_parti.mesh import Layout, MeshStep
from keras_parti.mesh.compat import tf1
from keras_parti.mesh.parti import ids_before
from keras_parti.mesh.plan import plan
from keras_parti.models.parti import PartiConfig

BATCH = 8
CONFIG = PartiConfig(
    encoder_layers=2,
    decoder_layers=2,
    dim=64,
    heads=4,
    mlp_dim=256,
    text_vocab_size=100,
    text_length=32,
    num_codes=127,
    num_tokens=144,
    attention_kernel=None,
    dropout_rate=0.0,
)


def allocated(config, layout, rematerialise):
    """Bytes at the peak of a training step, over all devices, variables included."""
    step = MeshStep(config, layout, BATCH, rematerialise=rematerialise)
    step.load({})
    random = np.random.default_rng(0)
    images = random.integers(0, config.num_codes, (BATCH, config.num_tokens))
    values = {
        "text_ids": random.integers(3, 100, (BATCH, config.text_length)),
        "image_ids": images,
        "before_ids": ids_before(images, config.num_codes),
        "rate": 1e-3,
        "step": 0,
    }
    feed = {step._step.inputs[name]: value for name, value in values.items()}
    variables = sum(array.nbytes for array in step.arrays().values())
    # Which temporary arrays meet depends on how busy the cores are: one step in some
    # dozens takes 11 % more than the plan.
    return variables, np.median([bytes_of_step(step, feed) for _ in range(5)])


def bytes_of_step(step, feed):
    """Bytes that a step holds at its peak, above what it holds at its begin."""
    traced = tf1.RunOptions(trace_level=tf1.RunOptions.FULL_TRACE)
    found = tf1.RunMetadata()
    step._session.run(step._train, feed, traced, found)
    # What is given back has a negative size.
    changes = sorted(
        (record.alloc_micros, record.alloc_bytes)
        for device in found.step_stats.dev_stats
        for node in device.node_stats
        for memory in node.memory
        for record in memory.allocation_records
    )
    return np.cumsum([size for _, size in changes]).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "rematerialise"),
    [
        ({}, False),
        ({}, True),
        ({"dropout_rate": 0.1}, False),
        ({"dropout_rate": 0.1}, True),
        ({"attention_kernel": 3}, False),
    ],
)
def test_a_step_allocates_what_the_plan_says(overrides, rematerialise):
    config = dataclasses.replace(CONFIG, **overrides)
    variables, peak = allocated(config, Layout(), rematerialise)
    planned = plan(config, Layout(), BATCH, "tpu_v4", "float32", rematerialise)
    assert variables == planned.weights + planned.optimizer
    assert variables + peak == pytest.approx(planned.peak, rel=0.1)


@pytest.mark.slow
def test_four_devices_allocate_what_the_plan_says_of_each():
    layout = Layout("data:2;model:2", "two_d")
    planned = plan(CONFIG, layout, BATCH, "tpu_v4", "float32")
    _, peak = allocated(CONFIG, layout, True)
    each = planned.weights + planned.optimizer + peak / 4
    assert each == pytest.approx(planned.peak, rel=0.1)
