"""The rules of a layout as those of `keras.distribution`, on eight devices of JAX."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from keras_parti.mesh.gspmd import patterns
from keras_parti.mesh.layouts import Layout
from keras_parti.models import Parti

SCRIPT = """
import json, sys
import keras
import numpy as np
from keras_parti.losses import TokenCrossEntropy
from keras_parti.mesh.gspmd import distribution
from keras_parti.mesh.layouts import Layout
from keras_parti.models import Parti
from keras_parti.optimizers import Adafactor

rates = {"dropout_rate": 0.0, "condition_dropout_rate": 0.0}
config = Parti.preset_config("parti_tiny", heads=4, **rates)
random = np.random.default_rng(0)
ids = {
    "text_ids": random.integers(2, 300, (16, 11)).astype("int32"),
    "image_ids": random.integers(0, 23, (16, 9)).astype("int32"),
}
found = []
for layout in json.loads(sys.argv[1]):
    keras.distribution.set_distribution(
        distribution(config, Layout(*layout)) if layout[0] else None
    )
    keras.utils.set_random_seed(1)
    model = Parti(config)
    model.compile(Adafactor(1e-2), TokenCrossEntropy())
    record = model.fit(ids, ids["image_ids"], 8, epochs=2, verbose=0, shuffle=False)
    sharding = model.decoder[0].feed_forward.wide.kernel.value.sharding
    shape = sharding.shard_shape((16, 24))
    found.append([record.history["loss"], shape])
print(json.dumps(found))
"""


def test_patterns_are_the_rules_of_every_variable():
    config = Parti.preset_config("parti_tiny")
    found = patterns(config, Layout("data:2;model:2", "two_d"))
    assert found[r"decoder_\d+/cross_attention/query/kernel$"] == (None, "model")
    assert found[r"decoder_\d+/attention/output_projection/kernel$"] == ("model", None)
    assert found[r"encoder_\d+/feed_forward/wide/bias$"] == ("model",)
    assert found["encoder_norm/gamma$"] == (None,)
    assert found["image_embedding/embeddings$"] == ("model", None)  # of 24
    assert found["logits/kernel$"] == (None, None)  # of 23


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs the extra jax")
def test_every_layout_has_the_losses_of_one_device():
    layouts = [
        ("", ""),
        ("data:8", "data_parallel"),
        ("model:4", "model_parallel"),
        ("data:2;model:4", "two_d"),
    ]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(layouts)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (one, _), *others = json.loads(done.stdout.splitlines()[-1])
    assert one[1] < one[0]
    for losses, _ in others:
        assert losses == pytest.approx(one, abs=1e-5)
    assert [shape for _, shape in others] == [[16, 24], [16, 6], [16, 6]]
