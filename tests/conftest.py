"""Settings for all tests: two virtual devices, fixed seeds, one strategy."""

import os
import signal
import sys

import pytest

# A shell has what it starts in the background ignore Ctrl-C, and so do processes that
# this starts. Tests send it to themselves and to others.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Of several workers each has one thread, or they would wait for each other's.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def pytest_collection_finish(session):
    # After collection, because only then it is known whether any test wants
    # TensorFlow: importing it takes seconds. None is the block of a JAX run.
    tf = sys.modules.get("tensorflow")
    if tf is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        if session.config.pluginmanager.hasplugin("_cov"):
            _leave_as_written()


def _leave_as_written():
    """Keeps AutoGraph from running copies, in which no line of ours would be counted.

    All other runs go through it, as those of users do; nothing of ours needs it.
    """
    from tensorflow.python.autograph.core import config

    ours = config.DoNotConvert("keras_parti")
    config.CONVERSION_RULES = (ours, *config.CONVERSION_RULES)


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


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """The folder of the two stand-in models, to be read only."""
    import stand_in

    folder = tmp_path_factory.mktemp("models")
    stand_in.write(folder)
    return folder


@pytest.fixture(scope="session")
def small_chain(tmp_path_factory):
    """An untrained chain of the smallest sizes, its weights far from their start."""
    import small_chain

    return small_chain.make_chain(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def exported(small_chain, tmp_path_factory):
    """The version folder of that chain, exported; to be read only."""
    from small_chain import KEEP, SAMPLES

    from keras_parti.serving.export import export

    folder = tmp_path_factory.mktemp("exported") / "toy"
    return export(
        small_chain,
        folder,
        SAMPLES,
        KEEP,
        card="Made by a test.",
        licence="CC0-1.0",
    )


@pytest.fixture(scope="session")
def exported_client(exported):
    """A client of a server of that version."""
    from small_chain import KEEP, SAMPLES

    from keras_parti.serving.client import Client
    from keras_parti.serving.server import Server

    with (
        Server(exported.parent, port=0) as server,
        Client(server.address, model="toy", best=(SAMPLES, KEEP)) as client,
    ):
        yield client
