"""Two processes train as one; one is killed, and the same command goes on."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow")

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import keras
import numpy as np
import tensorflow as tf
from keras_parti.models import Parti
from keras_parti.training import strategy
from keras_parti.training.parti import compile_parti
from keras_parti.training.workdir import fit

workdir, killed = Path(sys.argv[1]), int(sys.argv[2])
devices = strategy("multi_worker")
keras.utils.set_random_seed(3)
random = np.random.default_rng(5)
texts = random.integers(3, 300, (24, 11)).astype("int32")
images = random.integers(0, 23, (24, 9)).astype("int32")
inputs = {"text_ids": texts, "image_ids": images}
data = tf.data.Dataset.from_tensor_slices((inputs, images)).repeat().batch(8)
with devices.strategy.scope():
    rates = {"dropout_rate": 0.0, "condition_dropout_rate": 0.0}
    model = Parti.from_preset("parti_tiny", **rates)
    compile_parti(model, 3e-3)


class Watch(keras.callbacks.Callback):
    done = 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        if self.done == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        print(json.dumps([epoch, logs["loss"]]), flush=True)


with devices.strategy.scope():
    fit(model, data, workdir, 4, 3, [Watch()], verbose=0)
print(json.dumps([-1, devices.strategy.num_replicas_in_sync]), flush=True)
"""


def start(folder, killed):
    """Starts both workers; the second kills itself after `killed` batches."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    running = []
    for i in range(2):
        cluster = {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": i},
        }
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, folder, str(killed if i else 0)],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return running


def ended(worker):
    """The losses of the epochs that a worker finished, in their order."""
    out, err = worker.communicate()
    assert worker.returncode in (0, -signal.SIGKILL), err
    return [json.loads(line) for line in out.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_a_run_that_goes_on_as_if_it_had_not(tmp_path):
    first, second = start(tmp_path / "whole", killed=0)
    whole = ended(first)
    assert ended(second) == whole  # each reports the loss of all replicas
    assert whole[-1] == [-1, 2]
    first, second = start(tmp_path / "killed", killed=7)  # the first of an epoch
    second.wait()
    assert second.returncode == -signal.SIGKILL
    first.kill()  # as whoever started the workers does when one is gone
    begun = ended(first)
    assert [epoch for epoch, _ in begun] == [0, 1]
    first, second = start(tmp_path / "killed", killed=0)
    resumed = ended(first)
    ended(second)
    np.testing.assert_allclose(begun + resumed, whole, rtol=1e-6)
    expected, found = (
        np.load(tmp_path / name / "checkpoints" / "000004.npz")
        for name in ("whole", "killed")
    )
    for name in expected.files:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
