"""Settings for all tests: two virtual devices, fixed seeds, one strategy."""

import sys

import pytest


def pytest_collection_finish():
    # After collection, because only then it is known whether any test wants
    # TensorFlow: importing it takes seconds. None is the block of a JAX run.
    tf = sys.modules.get("tensorflow")
    if tf is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )


@pytest.fixture(autouse=True)
def _seed():
    keras = sys.modules.get("keras")
    if keras is not None:
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def two_replicas():
    # One for the whole run: a second strategy would reuse the keys of the first
    # one's collectives, and TensorFlow would abort on their shapes.
    tf = pytest.importorskip("tensorflow")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
