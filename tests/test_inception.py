"""The FID's network is that of the PyTorch package, whose features are kept here."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_parti.evaluation import inception
from keras_parti.evaluation.fid import feature_network
from keras_parti.evaluation.inception import InceptionFeatures

FOLDER = Path(__file__).parent / "fixtures" / "inception"


@pytest.fixture(scope="module")
def making():
    """The script that made the features."""
    spec = importlib.util.spec_from_file_location("making", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "features.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights(making, golden):
    shapes = json.loads(str(golden["shapes"]))
    return making.weights_of({name: tuple(shape) for name, shape in shapes.items()})


@pytest.fixture(scope="module")
def network(weights):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "read_torch_file", lambda path: weights)
        patch.setattr(inception, "BATCH", 2)
        yield InceptionFeatures("weights.pth")


def test_features_and_logits_are_those_of_the_pytorch_package(network, making, golden):
    found = network(making.pictures())
    assert (network.name, network.width, network.classes) == ("inception", 2048, 1008)
    for name in ("features", "logits"):
        scale = np.abs(golden[name]).mean()
        np.testing.assert_allclose(found[name], golden[name], atol=2e-4 * scale, rtol=0)


def test_a_batch_that_is_not_full_gives_the_same(network, making, golden):
    found = network(making.pictures()[[1, 0, 1]])["features"]
    np.testing.assert_allclose(found, golden["features"][[1, 0, 1]], atol=1e-3)


def test_weights_of_another_network_are_refused(monkeypatch):
    monkeypatch.setattr(inception, "read_torch_file", lambda path: {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="no weights of the FID's Inception"):
        InceptionFeatures("weights.pth")


@pytest.mark.slow
def test_keras_own_network_has_features_and_logits(monkeypatch):
    make = keras.applications.InceptionV3
    monkeypatch.setattr(
        keras.applications,
        "InceptionV3",
        lambda **options: make(weights=None, **options),
    )
    monkeypatch.setattr(inception, "BATCH", 1)
    network = feature_network("keras-inception")
    found = network(np.full((1, 31, 37, 3), 255, np.uint8))
    assert found["features"].shape == (1, 2048)
    assert found["logits"].shape == (1, 1000)
    monkeypatch.setattr(keras.applications, "InceptionV3", _broken)
    with pytest.raises(OSError, match="Give a weight file by its path"):
        feature_network("keras-inception")


def _broken(**_):
    raise Exception("URL fetch failure")


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("vgg", None, "must be one of inception, keras-inception"),
        ("inception", None, "features inception need `weights`"),
        ("pixels", "w.pth", "no others take any"),
    ],
)
def test_features_and_weights_must_fit(name, weights, words):
    with pytest.raises(ValueError, match=words):
        feature_network(name, weights)
