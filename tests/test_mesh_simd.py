"""Parti lowered for a pod of TPUs that is described: its slices and its collectives."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from keras_parti.cli import main
from keras_parti.mesh import Layout
from keras_parti.mesh.plan import plan
from keras_parti.mesh.simd import describe_topology, lower
from keras_parti.mesh.variables import arrays_of
from keras_parti.models import Parti

CONFIG = Parti.preset_config("parti_tiny", decoder_layers=1, dropout_rate=0.0)
LAYOUT = Layout("data:4;model:2", "two_d")


@pytest.fixture(scope="module")
def lowered():
    return lower(CONFIG, LAYOUT, 16, dtype="float32", rematerialise=False)


def test_a_pod_is_near_to_a_cube_and_has_every_device_once():
    topology = describe_topology(1024)
    assert topology.mesh_shape.tolist() == [16, 8, 8, 1]
    places = topology.device_coordinates.reshape(-1, 4)
    assert len(np.unique(places, axis=0)) == 1024
    with pytest.raises(ValueError, match=r"power of two. Received: 12 devices"):
        describe_topology(12)


def test_slices_are_exactly_what_the_plan_says(lowered):
    expected = {
        array.name: LAYOUT.slice_shape(array.axes, array.shape)
        for array in arrays_of(CONFIG)
    }
    assert {n: shape for n, (shape, _) in lowered["slices"].items()} == expected
    planned = plan(CONFIG, LAYOUT, 16)
    assert lowered["variable_bytes"] == planned.weights + planned.optimizer


def test_collectives_are_sums_over_the_axes_of_the_mesh(lowered):
    found = lowered["collectives"]
    assert {key[0] for key in found} == {"CrossReplicaSum"}
    assert {key[1] for key in found} == {"data", "model", "data,model"} & {
        key[1] for key in found
    }
    # Around a ring of n devices a sum sends 2 (n - 1) / n of what it sums.
    planned = plan(CONFIG, LAYOUT, 16, dtype="float32", rematerialise=False)
    summed = dict.fromkeys(LAYOUT.axes, 0)
    for (_, axes, _), row in found.items():
        for axis in axes.split(","):
            summed[axis] += row["bytes"]
    for axis, size in LAYOUT.axes.items():
        sent = 2 * (size - 1) / size * summed[axis]
        # The plan leaves vectors and what Adafactor and the loss sum to the rest.
        assert planned.sent[axis] <= sent


def test_a_pod_of_other_sizes_than_the_layout_is_refused():
    other = dataclasses.replace(LAYOUT, mesh="data:3;model:2")
    with pytest.raises(ValueError, match="`batch` of 16 does not split into 3"):
        lower(CONFIG, other, 16)


@pytest.mark.slow
def test_the_largest_model_is_lowered_for_1024_devices():
    config = Parti.preset_config("parti_20b")
    layout = Layout("data:64;model:16", "two_d")
    planned = plan(config, layout, 8192)
    found = lower(config, layout, 8192)
    assert found["variable_bytes"] == planned.weights + planned.optimizer
    # Sums over 16 devices are of float32, around a ring.
    row = found["collectives"]["CrossReplicaSum", "model", "float32"]
    sent = 2 * 15 / 16 * row["bytes"]
    assert planned.sent["model"] == pytest.approx(sent, rel=0.1)


def test_the_command_counts_slices_and_collectives(capsys):
    command = ["plan", "--preset", "parti_tiny", "--mesh", "a:2", "--layout", "batch:a"]
    assert main([*command, "--batch", "2", "--dtype", "float32", "--lower"]) == 0
    words = capsys.readouterr().out
    planned = plan(Parti.preset_config("parti_tiny"), Layout("a:2", "batch:a"), 2)
    assert f"{planned.weights + planned.optimizer:,}" in words
    assert "CrossReplicaSum over a, float32" in words
