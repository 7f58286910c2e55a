"""A converted ViT-VQGAN computes what the other implementation does."""

import math
import re

import numpy as np
import pytest
from keras import ops
from test_weight_files import entry, safetensors
from torch_files import tensors_of, write_stream, write_zip

from keras_parti import cli
from keras_parti.models import ViTVQGAN, from_enhancing_transformers

SIZE, PATCH, CODES, CODE_DIM, HEAD_DIM = 15, 5, 23, 7, 4
# Layers, width and width inside.
TOWERS = {"encoder": (2, 12, 17), "decoder": (1, 8, 19)}
AXES = [(1, 2, 3), (1, 2, 3)]  # channels, rows and columns
POSITIONS = {"encoder": "en_pos_embedding", "decoder": "de_pos_embedding"}


def state_dict():
    """Weights in their names and shapes, as far from their start as trained ones."""
    rng = np.random.default_rng(3)

    def normal(*shape):
        return rng.normal(0, 0.4, shape).astype("float32")

    state = {}
    for side, (layers, dim, inside) in TOWERS.items():
        state[f"{side}.{POSITIONS[side]}"] = 3 * normal(1, (SIZE // PATCH) ** 2, dim)
        for i in range(layers):
            block = f"{side}.transformer.layers.{i}"
            for part in (0, 1):
                state[f"{block}.{part}.norm.weight"] = 1 + normal(dim)
                state[f"{block}.{part}.norm.bias"] = 0.3 * normal(dim)
            state[f"{block}.0.fn.to_qkv.weight"] = normal(3 * dim, dim)
            state[f"{block}.0.fn.to_out.weight"] = normal(dim, dim)
            state[f"{block}.0.fn.to_out.bias"] = normal(dim)
            state[f"{block}.1.fn.net.0.weight"] = normal(inside, dim)
            state[f"{block}.1.fn.net.0.bias"] = normal(inside)
            state[f"{block}.1.fn.net.2.weight"] = normal(dim, inside)
            state[f"{block}.1.fn.net.2.bias"] = normal(dim)
        state[f"{side}.transformer.norm.weight"] = 1 + normal(dim)
        state[f"{side}.transformer.norm.bias"] = 0.3 * normal(dim)
    encoder, decoder = (TOWERS[side][1] for side in TOWERS)
    state["encoder.to_patch_embedding.0.weight"] = normal(encoder, 3, PATCH, PATCH)
    state["encoder.to_patch_embedding.0.bias"] = normal(encoder)
    state["decoder.to_pixel.1.weight"] = normal(decoder, 3, PATCH, PATCH)
    state["decoder.to_pixel.1.bias"] = normal(3)
    state["quantizer.embedding.weight"] = normal(CODES, CODE_DIM)
    state["pre_quant.weight"] = normal(CODE_DIM, encoder)
    state["pre_quant.bias"] = normal(CODE_DIM)
    state["post_quant.weight"] = normal(decoder, CODE_DIM)
    state["post_quant.bias"] = normal(decoder)
    return state


class Theirs:
    """Their forward pass in NumPy and float64, on channels first as theirs is."""

    def __init__(self, state):
        self.state = {name: array.astype("float64") for name, array in state.items()}

    def linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state.get(f"{name}.bias", 0)

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attention(self, x, name):
        merged = []
        query, key, value = np.split(self.linear(x, f"{name}.to_qkv"), 3, axis=-1)
        for begin in range(0, x.shape[-1], HEAD_DIM):
            q, k, v = (t[..., begin : begin + HEAD_DIM] for t in (query, key, value))
            weights = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(HEAD_DIM))
            merged.append(weights / weights.sum(-1, keepdims=True) @ v)
        return self.linear(np.concatenate(merged, -1), f"{name}.to_out")

    def transformer(self, x, side):
        x = x + self.state[f"{side}.{POSITIONS[side]}"]
        for i in range(TOWERS[side][0]):
            block = f"{side}.transformer.layers.{i}"
            x = x + self.attention(self.norm(x, f"{block}.0.norm"), f"{block}.0.fn")
            hidden = self.linear(self.norm(x, f"{block}.1.norm"), f"{block}.1.fn.net.0")
            x = x + self.linear(np.tanh(hidden), f"{block}.1.fn.net.2")
        return self.norm(x, f"{side}.transformer.norm")

    def unit(self, x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def encode(self, images):
        """`(batch, 3, height, width)` in [0, 1] to ids `(batch, length)`."""
        kernel = self.state["encoder.to_patch_embedding.0.weight"]
        tokens = [
            np.tensordot(images[..., y : y + PATCH, x : x + PATCH], kernel, AXES)
            for y in range(0, SIZE, PATCH)
            for x in range(0, SIZE, PATCH)
        ]
        x = np.stack(tokens, 1) + self.state["encoder.to_patch_embedding.0.bias"]
        x = self.linear(self.transformer(x, "encoder"), "pre_quant")
        codes = self.unit(self.state["quantizer.embedding.weight"])
        distances = ((self.unit(x)[:, :, None] - codes) ** 2).sum(-1)
        return distances.argmin(-1)

    def decode(self, ids):
        codes = self.unit(self.state["quantizer.embedding.weight"])[ids]
        x = self.transformer(self.linear(codes, "post_quant"), "decoder")
        kernel = self.state["decoder.to_pixel.1.weight"]
        patches = np.einsum("bld,dcyx->blcyx", x, kernel)
        images = np.empty((len(ids), 3, SIZE, SIZE))
        for token in range(ids.shape[1]):
            y, x = (PATCH * place for place in divmod(token, SIZE // PATCH))
            images[:, :, y : y + PATCH, x : x + PATCH] = patches[:, token]
        return images + self.state["decoder.to_pixel.1.bias"][:, None, None]


def write(path, state):
    """Writes what `path`'s suffix says."""
    if path.suffix == ".safetensors":
        described, data = {}, b""
        for name, array in state.items():
            bounds = (len(data), len(data) + array.nbytes)
            described[name] = entry("F32", array.shape, bounds)
            data += array.tobytes()
        safetensors(path, described, data)
    elif path.suffix == ".ckpt":
        tensors, storages = tensors_of(state)
        tree = {"epoch": 3, "state_dict": tensors, "lr_schedulers": []}
        write_zip(path, tree, storages)
    else:
        write_stream(path, *tensors_of(state))
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.ckpt", "w.pth"])
def test_a_converted_model_is_theirs(tmp_path, capsys, name):
    state = state_dict()
    discriminator = {"loss.discriminator.conv.weight": np.ones((3, 2), "float32")}
    path = write(tmp_path / name, state | discriminator)
    out = tmp_path / "model"
    words = ["convert", "--from", "enhancing-transformers", "--weights", str(path)]
    assert cli.main([*words, "--out", str(out), "--head-dim", str(HEAD_DIM)]) == 0
    model, theirs = ViTVQGAN.load_dir(out), Theirs(state)
    assert model.fingerprint() in capsys.readouterr().out

    images = np.random.default_rng(5).uniform(size=(4, SIZE, SIZE, 3))
    ids = theirs.encode(images.transpose(0, 3, 1, 2))
    assert len(np.unique(ids)) > 4
    np.testing.assert_array_equal(model.encode(images.astype("float32")), ids)
    expected = theirs.decode(ids).transpose(0, 2, 3, 1)
    got = ops.convert_to_numpy(model(images.astype("float32"))["images"])
    np.testing.assert_allclose(got, expected, atol=2e-5)
    ids = np.arange(36).reshape(4, 9) % CODES
    expected = theirs.decode(ids).transpose(0, 2, 3, 1).clip(0, 1)
    np.testing.assert_allclose(model.decode(ids), expected, atol=2e-5)


def test_an_older_revision_has_other_names(tmp_path):
    older = {}
    for name, array in state_dict().items():
        name = name.replace("transformer.norm.", "norm.")
        older[name.replace("to_pixel.1.", "to_pixel.conv_out.")] = array
    assert "encoder.norm.bias" in older
    model = from_enhancing_transformers(write(tmp_path / "w.ckpt", older), HEAD_DIM)
    again = write(tmp_path / "w.safetensors", state_dict())
    again = from_enhancing_transformers(again, HEAD_DIM)
    assert again.fingerprint() == model.fingerprint()
    for a, b in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


def test_a_refusal_lists_all_differences(tmp_path, capsys):
    state = state_dict()
    for i in range(2):
        attention = f"encoder.transformer.layers.{i}.0.fn"
        state[f"{attention}.to_qkv.bias"] = np.zeros(36, "float32")
        del state[f"{attention}.to_out.bias"]
    state["decoder.transformer.layers.0.0.fn.to_qkv.weight"] = np.ones((36, 8), "f4")
    state["decoder.to_pixel.1.weight"] = np.ones((8, 4, 5, 5), "float32")
    state["encoder.transformer.layers.1.1.norm.bias"][3] = np.nan
    state["post_quant.bias"] = np.arange(8)
    path = write(tmp_path / "w.ckpt", state)
    words = ["convert", "--from", "enhancing-transformers", "--weights", str(path)]
    assert cli.main([*words, "--out", str(tmp_path / "out"), "--head-dim", "5"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for difference in (
        "9 differences",
        "encoder: heads of a width of 5, `head_dim`, do not divide its own, 12",
        "decoder: heads of a width of 5, `head_dim`, do not divide its own, 8",
        "decoder: its heads are 12 wide together, and here as wide as the tower, 8",
        "encoder.transformer.layers.*.0.fn.to_qkv.bias (36,) has no place (2 blocks)",
        "encoder.transformer.layers.*.0.fn.to_out.bias is missing (2 blocks)",
        "decoder.transformer.layers.*.0.fn.to_qkv.weight is (36, 8), here (24, 8)",
        "decoder.to_pixel.1.weight is (8, 4, 5, 5), here (8, 3, 5, 5)",
        "encoder.transformer.layers.*.1.norm.bias is not finite",
        "post_quant.bias is int64, not of floats",
    ):
        assert difference in said, difference
    assert not (tmp_path / "out").exists()


def test_other_models_are_refused(tmp_path):
    state = {"enc_dec.encs.0.weight": np.ones((3, 2), "float32")}
    message = "holds no ViT-VQGAN.*Received: enc_dec.encs.0.weight, 1 in all"
    with pytest.raises(ValueError, match=message):
        from_enhancing_transformers(write(tmp_path / "w.pth", state))
    state = state_dict()
    for side, name in POSITIONS.items():
        state[f"{side}.{name}"] = np.ones((1, 8, TOWERS[side][1]), "float32")
    with pytest.raises(ValueError, match="8 tokens are no square"):
        from_enhancing_transformers(write(tmp_path / "w.pth", state), HEAD_DIM)


def test_the_folder_must_be_new(tmp_path, capsys):
    path = write(tmp_path / "w.pth", {})
    words = ["convert", "--from", "enhancing-transformers", "--weights", str(path)]
    assert cli.main([*words, "--out", str(tmp_path)]) == 2
    assert "--out must be a new or empty folder" in capsys.readouterr().err


def test_the_help_says_what_is_accepted(capsys):
    assert cli.main(["convert", "--help"]) == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for words in (
        ".safetensors, .pt, .pth or .ckpt",
        "normalized",
        "residual",
        "Gumbel",
    ):
        assert words in said
