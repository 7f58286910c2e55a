"""From a word to a `tf.distribute` strategy and the precision that its devices like."""

import contextlib
import json
import os
from contextlib import AbstractContextManager
from typing import NamedTuple

import tensorflow as tf

STRATEGIES = ("auto", "tpu", "gpu", "multi_worker", "cpu")


class Devices(NamedTuple):
    """What `strategy` returns."""

    strategy: tf.distribute.Strategy
    dtype: str  # a dtype policy of Keras


class _Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """A strategy of several workers under which Keras' `fit` works.

    Keras 3.15 asks it for means that TensorFlow's own refuses: of a whole batch of
    inputs and targets, for their shapes, and along the first axis of figures that have
    none.
    """

    def reduce(self, reduce_op, value, axis):
        def reduce(one):
            rank = self.experimental_local_results(one)[0].shape.rank
            return super(_Workers, self).reduce(reduce_op, one, axis if rank else None)

        return tf.nest.map_structure(reduce, value)


def strategy(kind: str = "auto", tpu: str | None = None) -> Devices:
    """Returns the strategy of the devices that are there.

    A strategy has the whole model on each device; a model that does not fit one is
    split by `keras_parti.mesh`. Batches are global: each replica has its share.

    Args:
        kind: str. "cpu", this machine's CPU; "gpu", all its GPUs; "tpu";
            "multi_worker", the machines that the environment variable `TF_CONFIG`
            names, which all run the same command; or "auto", the first of
            "multi_worker", "tpu", "gpu" and "cpu" that is there.
        tpu: str or None. Name or address of the TPU; None, that of the environment
            variable `TPU_NAME`, or "local", this machine's.

    Returns:
        `Devices`, of the strategy, and of "float32" for CPUs and "mixed_bfloat16" for
        others, the precision of Parti's training (section 3).

    Raises:
        ValueError: an unknown kind, or one whose devices are not there.

    Example:
        >>> import keras_parti
        >>> devices = strategy("cpu")
        >>> with devices.strategy.scope():
        ...     model = keras_parti.Parti.from_preset("parti_tiny", devices.dtype)
    """
    if kind not in STRATEGIES:
        raise ValueError(
            f"`strategy` must be one of {', '.join(STRATEGIES)}. Received: {kind!r}"
        )
    if kind == "auto":
        kind = _found()
    if kind == "cpu":
        return Devices(tf.distribute.OneDeviceStrategy("/cpu:0"), "float32")
    if kind == "multi_worker":
        if not _workers():
            raise ValueError(
                "`strategy` multi_worker needs the environment variable TF_CONFIG, "
                'such as {"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
                '"task": {"type": "worker", "index": 0}}, with another index on each. '
                f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}"
            )
        workers = _Workers()
        gpus = tf.config.list_physical_devices("GPU")
        return Devices(workers, "mixed_bfloat16" if gpus else "float32")
    if kind == "gpu":
        if not tf.config.list_physical_devices("GPU"):
            found = [device.name for device in tf.config.list_physical_devices()]
            raise ValueError(
                f"`strategy` gpu needs a GPU that TensorFlow sees. Received: {found}"
            )
        return Devices(tf.distribute.MirroredStrategy(), "mixed_bfloat16")
    return Devices(_tpu_strategy(tpu), "mixed_bfloat16")


def scope(kind: str | None) -> AbstractContextManager:
    """Returns the scope in which to build a model and to train it.

    Args:
        kind: str, as `strategy` takes it; or None, for a scope of nothing, in which
            training has one device.

    Returns:
        A context manager.
    """
    return contextlib.nullcontext() if kind is None else strategy(kind).strategy.scope()


def _found():
    if len(_workers()) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def _workers():
    """Returns the addresses of the workers that `TF_CONFIG` names."""
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        return json.loads(text).get("cluster", {}).get("worker", [])
    except (ValueError, AttributeError):
        raise ValueError(
            f"TF_CONFIG must be JSON of a cluster and a task. Received: {text!r}"
        ) from None


def _tpu_strategy(name):
    name = name or os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            "`strategy` tpu needs a TPU: on a TPU VM with the package tensorflow-tpu, "
            f"or one that TPU_NAME names. Received: {name!r}, of which TensorFlow "
            f"says: {error}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
