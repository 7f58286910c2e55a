"""The scanned step on JAX: the Keras model's own, and what XLA makes of it."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from keras_parti.cli import main
from keras_parti.mesh.hlo import collectives
from keras_parti.mesh.layouts import Layout
from keras_parti.mesh.plan import plan
from keras_parti.models import Parti

needs_jax = pytest.mark.skipif(
    not importlib.util.find_spec("jax"), reason="needs the extra jax"
)

SCRIPT = """
import json, sys
import keras
import numpy as np
from keras_parti.losses import TokenCrossEntropy
from keras_parti.mesh.ahead import ScannedStep
from keras_parti.mesh.layouts import Layout
from keras_parti.models import Parti
from keras_parti.optimizers import Adafactor

config = Parti.preset_config("parti_tiny", **json.loads(sys.argv[1]))
count = int(sys.argv[3])
random = np.random.default_rng(0)
ids = {
    "text_ids": random.integers(2, 300, (8, 11)).astype("int32"),
    "image_ids": random.integers(0, 23, (8, 9)).astype("int32"),
}
model = Parti(config)
for variable in model.trainable_variables:  # blocks begin as the identity
    variable.assign(variable + 0.2 * random.normal(size=variable.shape))
found = {"keras": [], "steps": []}
for layout, rematerialise in json.loads(sys.argv[2]):
    step = ScannedStep(config, Layout(*layout), 8, "float32", rematerialise)
    compiled, state, losses = step.compile(), step.begin(model), []
    for _ in range(max(count, 2)):
        state, loss = compiled(state, ids, np.float32(0.01))
        losses.append(float(loss))
    analysis = compiled.memory_analysis()
    found["steps"].append([losses, analysis.argument_size_in_bytes])
if count == 1:  # only what the step begins with
    loss = TokenCrossEntropy()(ids["image_ids"], model(ids))
    print(json.dumps({**found, "keras": [float(loss)]}))
    sys.exit()
optimizer = Adafactor(0.01)
optimizer.exclude_from_weight_decay(
    [v for v in model.trainable_variables if len(v.shape) < 2]
)
model.compile(optimizer, TokenCrossEntropy())
for _ in range(count):
    found["keras"].append(float(model.train_on_batch(ids, ids["image_ids"])))
print(json.dumps(found))
"""


def run(config, cases, count=3):
    """Returns the losses of some steps, by Keras and by each case."""
    arguments = map(json.dumps, (config, cases, count))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
            "--xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_jax
def test_the_scanned_step_begins_at_the_loss_of_keras_and_lowers_it():
    """That its further steps are Keras' as well is seen on every layout, slowly."""
    config = {"dropout_rate": 0.0, "condition_dropout_rate": 0.0}
    found = run(config, [(("a:2", "batch:a"), True)], count=1)
    (first, second), _ = found["steps"][0]
    assert first == pytest.approx(found["keras"][0], abs=2e-5)
    assert second < first


@needs_jax
@pytest.mark.slow
def test_the_scanned_step_is_the_step_of_keras_on_every_layout():
    config = {
        "heads": 4,
        "decoder_layers": 3,
        "attention_kernel": 3,
        "window_layers": [1, 2],  # two loops
        "dropout_rate": 0.0,
        "condition_dropout_rate": 0.0,
    }
    layouts = [
        ("", ""),
        ("data:8", "data_parallel"),
        ("data:2;model:4", "batch:data;heads:model;mlp:model"),
    ]
    cases = [(layouts[0], False), *((layout, True) for layout in layouts)]
    found = run(config, cases)
    assert found["keras"][2] < found["keras"][0]
    for losses, _ in found["steps"]:
        assert losses == pytest.approx(found["keras"], abs=2e-5)
    for (layout, _), (_, arguments) in zip(cases, found["steps"], strict=True):
        layout = Layout(*layout)
        planned = plan(Parti.preset_config("parti_tiny", **config), layout, 8)
        ids = 8 // layout.pieces("batch") * (11 + 9) * 4
        # Six generators in the model, and three in each of four blocks; step and rate.
        beside = arguments - planned.weights - planned.optimizer - ids
        assert 0 <= beside <= 8 * (6 + 5 * 4) + 8


MODULE = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(f32[] %a, f32[] %b)
}

%inner (p: (s32[], f32[6,5])) -> (s32[], f32[6,5]) {
  %x = f32[6,5]{1,0} get-tuple-element(%p), index=1
  %all-reduce.1 = f32[6,5]{1,0} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], use_global_device_ids=true, to_apply=%add
}

ENTRY %main (x: f32[6,5]) -> f32[6,5] {
  %while.7 = (s32[], f32[6,5]{1,0}) while(%t), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"16"}}
  %all-gather.2 = (bf16[12,5]{1,0}, /*index=1*/s8[7]{0}) all-gather(%y), channel_id=2, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  %scatter = f32[3]{0} reduce-scatter(%y), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %permute = pred[10]{0} collective-permute(%z), source_target_pairs={{0,4},{4,0}}
}
"""  # noqa: E501


def test_collectives_of_a_module_are_counted_as_often_as_they_run():
    assert collectives(MODULE, Layout("data:2;model:4", "two_d")) == {
        ("all-reduce", "model"): {"count": 16, "bytes": 1920, "sent": 2880.0},
        ("all-gather", "data"): {"count": 1, "bytes": 127, "sent": 63.5},
        ("reduce-scatter", "model"): {"count": 1, "bytes": 12, "sent": 36.0},
        ("collective-permute", "data"): {"count": 1, "bytes": 10, "sent": 10.0},
    }


@needs_jax
@pytest.mark.slow
def test_the_command_prints_what_xla_finds_beside_the_plan(capfd):
    command = ["plan", "--preset", "parti_tiny", "--mesh", "model:2", "--batch", "2"]
    assert main([*command, "--layout", "heads:model;mlp:model", "--compile"]) == 0
    words = capfd.readouterr().out
    assert "weights, Adafactor's state, ids" in words
    assert "all-reduce over model" in words
    assert "the plan, over model" in words
    assert main([*command, "--layout", "heads:model;mlp:model;kv:model"]) == 2
