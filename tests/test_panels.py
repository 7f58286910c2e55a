"""What TensorBoard shows of a tokenizer in training."""

import os

import keras
import numpy as np
import pytest
from discs import pictures

tf = pytest.importorskip("tensorflow")

from tensorboard.backend.event_processing.event_accumulator import (  # noqa: E402
    EventAccumulator,
)

from keras_parti.models import ViTVQGAN  # noqa: E402
from keras_parti.training import panels  # noqa: E402
from keras_parti.training.adversarial import AdversarialTraining  # noqa: E402
from keras_parti.training.panels import Panels  # noqa: E402


def test_reconstruction_is_measured_and_shown_beside_its_error(tmp_path):
    model = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    training = AdversarialTraining(model)
    training.compile(keras.optimizers.SGD(0.1))
    images = tf.data.Dataset.from_tensor_slices(pictures()).batch(4)
    callback, logs = Panels(images, tmp_path, num_shown=3), {}
    callback.set_model(training)
    callback.on_epoch_end(0, logs)
    outputs = keras.ops.convert_to_numpy(model.reconstruct(pictures()))
    errors = np.square(outputs - pictures()).mean((1, 2, 3))
    assert logs["val_psnr"] == pytest.approx(-10 * np.log10(errors).mean(), rel=1e-4)
    ids = keras.ops.convert_to_numpy(model.encode(pictures()))
    assert logs["val_codebook_usage"] == pytest.approx(len(np.unique(ids)) / 23)

    (path,) = tmp_path.glob("events*")
    shown = {}
    for event in tf.compat.v1.train.summary_iterator(os.fspath(path)):
        shown |= {value.tag: value.tensor for value in event.summary.value}
    _, _, *pngs = shown["reconstruction"].string_val
    assert len(pngs) == 3
    panel = tf.io.decode_png(pngs[0]).numpy() / 255
    expected = [pictures()[0], outputs[0], 1 - np.abs(pictures()[0] - outputs[0])]
    # TensorBoard's bytes are rounded down.
    np.testing.assert_allclose(panel, np.concatenate(expected, 1), atol=1.01 / 255)


def test_the_histogram_is_of_how_often_codes_are_used_in_one_file(tmp_path):
    """As TensorBoard itself reads it, of three epochs."""
    model = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    training = AdversarialTraining(model)
    training.compile(keras.optimizers.SGD(0.1))
    images = tf.data.Dataset.from_tensor_slices(pictures()).batch(4)
    callback = Panels(images, tmp_path)
    callback.set_model(training)
    for epoch in range(3):
        callback.on_epoch_end(epoch, {})
    callback.on_train_end()
    assert len(list(tmp_path.glob("events*"))) == 1
    events = EventAccumulator(os.fspath(tmp_path), {"tensors": 0}).Reload()
    found = events.Tensors("codebook")
    assert [event.step for event in found] == [0, 1, 2]
    buckets = tf.make_ndarray(found[0].tensor_proto)  # left, right, number of codes
    ids = keras.ops.convert_to_numpy(model.encode(pictures())).ravel()
    counts = np.bincount(ids, minlength=23)
    assert 0 < (counts == 0).sum() < 23
    edges = np.append(buckets[:, 0], buckets[-1, 1])
    assert (edges[0], edges[-1]) == pytest.approx((0, np.log2(1 + counts.max())))
    assert buckets[0, 2] == (counts == 0).sum()
    assert buckets[:, 2].sum() == 23


def test_of_several_workers_one_shows(tmp_path, monkeypatch):
    training = AdversarialTraining(ViTVQGAN.from_preset("vit_vqgan_tiny"))
    training.compile(keras.optimizers.SGD(0.1))
    callback = Panels(tf.data.Dataset.from_tensors(pictures()), tmp_path)
    callback.set_model(training)
    monkeypatch.setattr(panels, "is_first", lambda model: False)
    callback.on_epoch_end(0, logs := {})
    assert "val_psnr" in logs
    assert not list(tmp_path.iterdir())
