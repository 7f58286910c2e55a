"""Plans of training on a mesh: their laws, and what the command prints."""

import dataclasses
import math
import subprocess
import sys

import pytest

from keras_parti.cli import main
from keras_parti.mesh.layouts import Layout
from keras_parti.mesh.plan import plan, search
from keras_parti.models.parti import Parti, PartiConfig

CONFIG = PartiConfig(
    encoder_layers=3,
    decoder_layers=5,
    dim=48,
    heads=8,
    mlp_dim=56,
    text_vocab_size=64,
    text_length=7,
    num_codes=31,  # and one that begins an image: all divide by 8
    num_tokens=25,
    attention_kernel=None,
    tie_embeddings=True,
)
BATCH = 16


def test_operations_are_those_of_every_weight_and_every_pair_of_places():
    d, f = CONFIG.dim, CONFIG.mlp_dim
    t, n = CONFIG.text_length, CONFIG.num_tokens
    encoder = t * (4 * d * d + 2 * d * f) + 2 * t * t * d
    decoder = n * (6 * d * d + 2 * d * f) + 2 * t * d * d + 2 * n * (n + t) * d
    ends = d * (t * CONFIG.text_vocab_size + 2 * n * 32)
    blocks = CONFIG.encoder_layers * encoder + CONFIG.decoder_layers * decoder
    forward = 2 * BATCH * (blocks + ends)
    kept = plan(CONFIG, Layout(), BATCH, rematerialise=False)
    assert kept.flops == 3 * forward
    again = plan(CONFIG, Layout(), BATCH)
    assert again.flops == 3 * forward + 2 * BATCH * blocks
    assert again.activations == kept.other_activations < kept.activations


def test_devices_share_operations_and_weights_evenly():
    one = plan(CONFIG, Layout(), BATCH)
    for mesh in ("data:4;model:2", "data:2;model:8"):
        split = plan(CONFIG, Layout(mesh, "two_d"), BATCH)
        assert split.flops * split.layout.devices == one.flops
    data = plan(CONFIG, Layout("data:4", "data_parallel"), BATCH)
    assert (data.weights, data.optimizer) == (one.weights, one.optimizer)
    assert data.flops * 4 == one.flops


def test_over_the_data_axis_go_the_gradients_of_all_matrices():
    found = plan(CONFIG, Layout("data:4", "data_parallel"), BATCH, dtype="float32")
    # Weights less vectors and positions, which are no factors of products.
    d, f = CONFIG.dim, CONFIG.mlp_dim
    block = 4 * d * d + 2 * d * f
    matrices = CONFIG.encoder_layers * block
    matrices += CONFIG.decoder_layers * (block + 4 * d * d)
    matrices += d * (CONFIG.text_vocab_size + 2 * 32)
    assert found.sent == {"data": 2 * 3 / 4 * matrices * 4}


def test_over_the_model_axis_goes_one_sum_a_sublayer_and_pass():
    config = dataclasses.replace(CONFIG, decoder_layers=1, encoder_layers=1)
    rules = "heads:model;mlp:model"
    kept, again = (
        plan(config, Layout("model:2", rules), BATCH, rematerialise=r)
        for r in (False, True)
    )
    text, image = (BATCH * n * config.dim * 2 for n in (7, 25))
    # Forward the sublayers' outputs; backward their inputs', and of the encoder's
    # output, which the cross-attention reads as well.
    assert kept.sent["model"] == 2 * text + 3 * image + 2 * text + 3 * image + text
    assert again.sent["model"] - kept.sent["model"] == text + 2 * image


def test_published_sizes_have_published_parameters():
    for name, params in (("parti_3b", 3_090_319_360), ("parti_20b", 20_544_319_488)):
        config = Parti.preset_config(name)
        found = plan(config, Layout(), 1)
        assert found.parameters == params
        # One byte of momentum a parameter, and vectors.
        assert params < found.optimizer < 1.01 * params
        split = plan(config, Layout("model:16", "model_parallel"), 16)
        assert split.parameters == pytest.approx(params / 16, rel=0.02)


def test_a_search_finds_what_fits_the_fastest_first():
    config = Parti.preset_config("parti_3b")
    found = search(config, 64, 512, "tpu_v4")
    assert found
    assert all(p.fits and p.layout.devices == 64 for p in found)
    times = [p.slowest for p in found]
    assert times == sorted(times)
    assert search(Parti.preset_config("parti_20b"), 2, 64, "tpu_v4") == []


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="`heads` of 8 does not split into 3"):
        plan(CONFIG, Layout("model:3", "heads:model"), BATCH)
    with pytest.raises(ValueError, match=r"one of tpu_v4, .* Received: 'tpu_v9'"):
        plan(CONFIG, Layout(), BATCH, "tpu_v9")


def test_the_command_prints_a_plan_and_a_search(capsys):
    mesh = ["--preset", "parti_3b", "--mesh", "data:128;model:4"]
    assert main(["plan", *mesh]) == 0
    words = capsys.readouterr().out
    assert "parti_3b on 512 × tpu_v4, batch 8192" in words
    assert "3.09 G" in words
    assert "450,000 steps" in words
    assert "fits" in words
    assert main(["plan", *mesh, "--search"]) == 0
    assert "two_d;length:model;memory:model" in capsys.readouterr().out


def test_the_command_says_in_one_line_what_is_wrong(capsys):
    command = ["plan", "--preset", "parti_3b", "--mesh", "data:128;model:5"]
    assert main(command) == 2
    words = capsys.readouterr().err
    assert words.count("\n") == 1
    assert "`heads` of 32 does not split into 5" in words


def test_a_plan_needs_no_tensorflow():
    script = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_parti.cli import main\n"
        "sys.exit(main(['plan', '--preset', 'parti_20b', '--mesh', "
        "'data:64;model:16']))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_memory_is_the_sum_of_its_parts():
    found = plan(CONFIG, Layout("data:2;model:2", "two_d"), BATCH)
    parts = found.weights + found.optimizer + found.activations
    assert found.peak >= parts
    assert found.gradients == found.weights
    assert math.isclose(found.days, found.fastest * 450_000 / 86_400)
