"""From a word to a strategy, and what is said where its devices are missing."""

import json
import types

import pytest

tf = pytest.importorskip("tensorflow")

from keras_parti import cli, training  # noqa: E402
from keras_parti.cli.parser import build_parser  # noqa: E402
from keras_parti.training.strategies import STRATEGIES  # noqa: E402
from keras_parti.training.workdir import Checkpoints  # noqa: E402


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_the_cpu_is_one_replica_in_float32():
    strategy, dtype = training.strategy("cpu")
    assert strategy.num_replicas_in_sync == 1
    assert dtype == "float32"


def test_trainings_offer_every_strategy():
    command = ["train", "vim", "--data", ".", "--preset", "vim_tiny"]
    options = build_parser().parse_args(
        [*command, "--workdir", "run", "--strategy", "cpu"]
    )
    assert options.strategy == "cpu"
    with cli._devices_of(options):
        assert isinstance(tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy)
    options.strategy = None
    with cli._devices_of(options):
        assert not tf.distribute.has_strategy()


def test_auto_takes_what_is_there(monkeypatch):
    seen = {"GPU": [], "TPU": []}
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: seen.get(kind, [])
    )
    from keras_parti.training import strategies

    assert strategies._found() == "cpu"
    seen["GPU"] = ["a device"]
    assert strategies._found() == "gpu"
    monkeypatch.setenv("TPU_NAME", "local")
    assert strategies._found() == "tpu"
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert strategies._found() == "multi_worker"


def test_missing_devices_are_said():
    with pytest.raises(ValueError, match=r"one of auto, tpu, .* Received: 'pod'"):
        training.strategy("pod")
    with pytest.raises(ValueError, match=r"gpu needs a GPU .*CPU:0"):
        training.strategy("gpu")
    with pytest.raises(ValueError, match=r"needs .* TF_CONFIG.*TF_CONFIG=None"):
        training.strategy("multi_worker")


def test_a_tpu_that_is_not_there_is_said():
    with pytest.raises(ValueError, match=r"tpu needs a TPU: .* Received: 'local'"):
        training.strategy("tpu")


def test_a_cluster_that_cannot_be_read_is_said(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "worker 1 of 2")
    with pytest.raises(ValueError, match=r"must be JSON .* Received: 'worker 1 of 2'"):
        training.strategy("auto")


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_workers_the_first_writes_checkpoints(tmp_path, is_first):
    extended = types.SimpleNamespace(should_checkpoint=is_first)
    model = types.SimpleNamespace(
        distribute_strategy=types.SimpleNamespace(extended=extended),
        variables=[],
        metrics_variables=[],
        optimizer=types.SimpleNamespace(variables=[], use_ema=False),
        trainable_variables=[],
        save_dir=lambda path: None,
    )
    checkpoints = Checkpoints(tmp_path, lambda: False)
    checkpoints.set_model(model)
    checkpoints.on_epoch_end(0)
    assert any(tmp_path.iterdir()) is is_first


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_command_knows_the_same_words(kind):
    command = ["train", "vim", "--data", ".", "--preset", "vim_tiny"]
    command += ["--workdir", "run", "--strategy", kind]
    assert build_parser().parse_args(command).strategy == kind
