"""Training an upsampler: what it is shown, what it learns, killed and resumed."""

import keras
import numpy as np
import pytest
from discs import pictures, use_discs
from killing import killed_in_epoch
from PIL import Image

tf = pytest.importorskip("tensorflow")

from keras_parti import metrics  # noqa: E402
from keras_parti.models import WDSR, ViTVQGAN, degradation  # noqa: E402
from keras_parti.training.adversarial import AdversarialTraining  # noqa: E402
from keras_parti.training.tokenizer import Losses, panels  # noqa: E402
from keras_parti.training.upsampler import (  # noqa: E402
    PLAIN,
    Upsampling,
    UpsamplingPanels,
    train_upsampler,
)

SIZE = 24  # twice the discs that `vit_vqgan_tiny` takes


def upsampler(scale=2):
    return WDSR.from_preset("wdsr_tiny", scale=scale)


@pytest.fixture
def tokenizer():
    return ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")


def train(folder, steps=6, tokenizer=None, **options):
    keras.utils.set_random_seed(3)
    model = upsampler()
    options = {"warmup_steps": 2, "steps_per_epoch": 2, "verbose": 0, **options}
    train_upsampler(model, "discs", folder, tokenizer, SIZE, steps, 4, **options)
    return model


def test_bicubic_pairs_keep_a_ramp_and_are_in_steps_of_8_bits():
    rows = np.tile(np.linspace(0.2, 0.7, 30)[:, None, None], (1, 1, 18, 3))
    small = np.asarray(degradation.shrink(rows.astype("float32"), 3))
    np.testing.assert_allclose(small * 255, np.rint(small * 255), atol=1e-4)
    # The middle of three rows, but where the edge is near.
    np.testing.assert_allclose(small[0, 2:-2], rows[0, 7:-6:3, ::3], atol=0.51 / 255)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_pairs_are_those_of_tensorflow(scale):
    images = np.random.default_rng(0).random((2, 11 * scale, 7 * scale, 3), "float32")
    small = np.asarray(degradation.shrink(images, scale))
    expected = tf.image.resize(images, (11, 7), "bicubic", antialias=True)
    expected = np.clip(expected, 0, 1)
    # Rounded to 8 bits, which moves a value by half a step at most.
    np.testing.assert_allclose(small, expected, atol=0.5 / 255 + 1e-6)


def test_the_antialiased_pairs_of_a_chessboard_are_grey():
    board = (np.indices((24, 24)).sum(0) % 2).astype("float32")
    images = np.repeat(board[None, ..., None], 3, axis=-1)
    small = np.asarray(degradation.shrink(images, 2))
    assert np.abs(small[:, 2:-2, 2:-2] - 0.5).max() < 0.01


@pytest.mark.parametrize("scale", [2, 4])
def test_a_tokenizer_is_shown_the_nearest_pixels_as_tensorflow_takes_them(scale):
    class Copy:
        """A tokenizer without fault."""

        reconstruct = staticmethod(lambda images: images)

    images = pictures(3, 12 * scale)
    got = degradation.shrink_to_tokens(images, scale, Copy)
    expected = tf.image.resize(images, (12, 12), "nearest")
    np.testing.assert_array_equal(got, expected)


def test_the_terms_are_those_of_degraded_originals(tokenizer):
    upsampling = Upsampling(upsampler(), SIZE, tokenizer)
    model = AdversarialTraining(upsampling, {"l1": 3.0, "l2": 5.0})
    model.compile(keras.optimizers.SGD(0.0))
    originals = pictures(4, SIZE)
    small = tokenizer.reconstruct(originals[:, 1::2, 1::2])
    error = np.asarray(upsampling.wdsr(small)["images"]) - originals
    terms = model.train_on_batch(originals, originals, return_dict=True)
    assert set(terms) == {"loss", "l1", "l2"}
    assert terms["l1"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert terms["l2"] == pytest.approx(np.square(error).mean(), rel=1e-4)
    assert terms["loss"] == pytest.approx(3 * terms["l1"] + 5 * terms["l2"], rel=1e-4)


@pytest.mark.slow
def test_training_moves_all_of_the_upsampler_and_nothing_of_the_tokenizer(
    tokenizer, tmp_path, monkeypatch
):
    use_discs(monkeypatch)
    before, start = tokenizer.get_weights(), upsampler().get_weights()
    model = train(
        tmp_path,
        tokenizer=tokenizer,
        terms=Losses(discriminator="discriminator_tiny", r1_interval=2),
        average=0.5,
    )
    for ours, theirs in zip(tokenizer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = WDSR.load_dir(tmp_path / "model")
    for w, s, stored in zip(model.get_weights(), start, again.weights, strict=True):
        assert np.abs(w - s).max() > 0
        np.testing.assert_array_equal(w, stored)


@pytest.mark.slow
def test_a_run_that_was_cut_ends_as_one_that_was_not(tmp_path, monkeypatch):
    use_discs(monkeypatch)
    whole = train(tmp_path / "whole")
    with killed_in_epoch(2):
        train(tmp_path / "cut")
    resumed = train(tmp_path / "cut")
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(("split", "shown"), [("validation", 1), ("test", 0)])
def test_without_held_out_pictures_none_are_shown(tmp_path, monkeypatch, split, shown):
    for folder in ("train", split):
        (tmp_path / folder).mkdir()
        pixels = (255 * pictures(1, SIZE)[0]).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / folder / "disc.png")
    given = []
    monkeypatch.setattr(
        "keras_parti.training.upsampler.fit",
        lambda *_, callbacks, **options: given.append(callbacks),
    )
    train_upsampler(upsampler(), str(tmp_path), tmp_path / "run", None, SIZE)
    assert [len(callbacks) for callbacks in given] == [shown]
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    assert len(panels(model, str(tmp_path), tmp_path / "run")) == shown


def test_panels_measure_what_they_show(tmp_path):
    upsampling = Upsampling(upsampler(), SIZE)
    upsampling.wdsr.tail.g.assign(np.ones(12))
    model = AdversarialTraining(upsampling, PLAIN.weights)
    model.compile(keras.optimizers.SGD(0.0))
    originals = pictures(5, SIZE)
    panels = UpsamplingPanels(
        tf.data.Dataset.from_tensor_slices(originals).batch(3), tmp_path, num_shown=2
    )
    panels.set_model(model)
    logs = {}
    panels.on_epoch_end(0, logs)
    small = degradation.shrink(originals, 2)
    ours = np.asarray(upsampling.wdsr.upscale(small))
    expected = metrics.psnr(originals, ours)
    assert logs["val_psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    expected = metrics.psnr(originals, degradation.enlarge(small, 2))
    assert logs["val_psnr_bicubic"] == pytest.approx(np.mean(expected), abs=1e-3)
    _, panel = panels._measure(upsampling)
    nearest, _, shown, last = np.split(np.asarray(panel), 4, axis=2)
    np.testing.assert_allclose(shown, ours[:2], atol=1e-6)
    np.testing.assert_array_equal(last, originals[:2])
    np.testing.assert_allclose(nearest[:, ::2, ::2], small[:2], atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "size", "message"),
    [
        (2, 25, r"multiple of the scale, 2\. Received: image_size=25"),
        (2, 36, r"must be 2 times that of the tokenizer, 12\. Received: image_size=36"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tokenizer, scale, size, message):
    with pytest.raises(ValueError, match=message):
        Upsampling(upsampler(scale), size, tokenizer)


def test_pictures_that_no_scale_divides_are_refused():
    with pytest.raises(ValueError, match=r"multiples of the scale, 3\. Received"):
        degradation.shrink(pictures(1, 16), 3)
