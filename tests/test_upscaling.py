"""How good an upsampler is, and its commands: right figures, files, and refusals."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

from keras_parti import cli, metrics
from keras_parti.evaluation import evaluate_upscaling
from keras_parti.evaluation.upscaling import most_detailed
from keras_parti.models import WDSR, degradation


def photographs(count, height=25, width=30):
    """Uint8 waves, of as many colours and directions as there are pictures."""
    y, x = np.mgrid[:height, :width]
    phase = np.arange(1, count + 1)[:, None, None, None]
    tone = np.arange(3)
    waves = np.sin(0.4 * phase * y[..., None] + 0.3 * x[..., None] + tone)
    return np.rint(127.5 + 127.5 * waves).astype("uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model folder of an upsampler that is not bicubic."""
    path = tmp_path_factory.mktemp("model")
    model = WDSR.from_preset("wdsr_tiny")
    model.tail.g.assign(np.full(12, 0.1))
    model.save_dir(path)
    return path


def run(*words):
    return cli.main([str(word) for word in words])


class MeanDistance(keras.Model):
    """A measure in the place of LPIPS."""

    def call(self, one, other):
        return keras.ops.mean(keras.ops.abs(one - other), axis=(1, 2, 3))


def test_the_figures_are_those_of_each_picture_alone(tmp_path):
    pictures, model = photographs(3), WDSR.from_preset("wdsr_tiny")
    model.tail.g.assign(np.full(12, 0.1))
    results = evaluate_upscaling(
        {"WDSR": model.upscale},
        lambda images: degradation.shrink(images, 2),
        pictures,
        2,
        tmp_path,
        perceptual=MeanDistance(),
        columns=2,
    )
    originals = pictures[:, :24].astype("float32") / 255  # a row is cut
    small = degradation.shrink(originals, 2)
    copies = {
        "nearest": np.repeat(np.repeat(small, 2, axis=1), 2, axis=2),
        "bicubic": degradation.enlarge(small, 2),
        "WDSR": model.upscale(small),
    }
    for score in ("psnr", "ssim"):
        for name, copy in copies.items():
            expected = np.mean(getattr(metrics, score)(originals, copy))
            assert results[score][name] == pytest.approx(expected, rel=1e-3), name
    gains = metrics.psnr(originals, copies["WDSR"]) - metrics.psnr(
        originals, copies["bicubic"]
    )
    better = np.mean(np.asarray(gains) > 0)
    assert results["better"] == {"WDSR": pytest.approx(better)}
    for name, copy in copies.items():
        l1 = np.abs(originals - np.asarray(copy)).mean()
        assert results["lpips"][name] == pytest.approx(l1, rel=1e-3), name
    assert json.loads((tmp_path / "results.json").read_text()) == results
    above = results["psnr"]["WDSR"] - results["psnr"]["bicubic"]
    assert f"{above:+.2f}" in (tmp_path / "table.md").read_text()
    assert Image.open(tmp_path / "strip.png").width > 2 * 30


def test_the_strip_shows_where_the_detail_is():
    picture = np.full((130, 200, 3), 200, "uint8")
    picture[0:9, 0:9] = photographs(1, 9, 9)[0]
    assert most_detailed(picture) == (slice(0, 64), slice(0, 64))
    picture[40:90, 100:150] = photographs(1, 50, 50)[0]
    assert most_detailed(picture) == (slice(32, 96), slice(96, 160))
    assert most_detailed(picture[:5])[0] == slice(0, 5)


def test_the_command_enlarges_files_of_any_kind_and_size(folder, tmp_path, capsys):
    sources = {"dot.png": ("RGB", (1, 1)), "grey.jpg": ("L", (37, 5))}
    sources["clear.webp"] = ("RGBA", (23, 31))
    for name, (mode, size) in sources.items():
        Image.new(mode, size, 90 if mode == "L" else None).save(tmp_path / name)
    paths = [tmp_path / name for name in sources]
    out = tmp_path / "large"
    assert run("upscale", *paths, "--upsampler", folder, "--out", out, "--tile", 9) == 0
    said = capsys.readouterr().out
    for path, (_, (width, height)) in zip(paths, sources.values(), strict=True):
        large = Image.open(out / f"{path.stem}.png")
        assert (large.mode, large.size) == ("RGB", (2 * width, 2 * height))
        assert f"{path.stem}.png, {2 * width} × {2 * height} pixels" in said


def test_the_command_gives_the_pixels_of_the_model(folder, tmp_path):
    picture = photographs(1, 21, 34)[0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    run("upscale", tmp_path / "a.png", "--upsampler", folder, "--out", tmp_path / "b")
    got = np.asarray(Image.open(tmp_path / "b" / "a.png"), "float32")
    whole = WDSR.load_dir(folder).upscale(picture[None].astype("float32") / 255)
    assert np.abs(got - 255 * np.asarray(whole[0])).max() <= 0.51


def test_what_cannot_be_done_is_said_in_a_line(folder, tmp_path, capsys):
    (tmp_path / "no.png").write_text("no picture")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp")
    for pictures, out, message in (
        (["no.png"], "large", "no.png: no picture in a format that is read"),
        (["a.png", "a.webp"], "large", "Two pictures would become"),
        (["a.png"], ".", "take the place of the picture itself"),
    ):
        paths = [tmp_path / name for name in pictures]
        out = tmp_path / out
        assert run("upscale", *paths, "--upsampler", folder, "--out", out) == 2
        assert message in capsys.readouterr().err
    assert run("upscale", tmp_path / "b.png", "--upsampler", folder, "--out", "x") == 2
    assert "there is no file" in capsys.readouterr().err


def test_a_run_of_the_commands_from_pictures_to_figures(tmp_path, capsys):
    for split, count in (("train", 3), ("validation", 2)):
        (tmp_path / "set" / split).mkdir(parents=True)
        for i, picture in enumerate(photographs(count, 40, 44)):
            Image.fromarray(picture).save(tmp_path / "set" / split / f"{i}.png")
    workdir = tmp_path / "run"
    data = ("--data", tmp_path / "set")
    train = ("train", "upsampler", *data, "--preset", "wdsr_tiny")
    sizes = ("--image-size", 16, "--steps", 2, "--batch-size", 2)
    assert run(*train, *sizes, "--steps-per-epoch", 1, "--workdir", workdir) == 0
    config = json.loads((workdir / "config.json").read_text())
    assert config["generator"]["image_size"] == 16
    assert config["generator"]["tokenizer"] is None
    evaluate = ("evaluate", "upscaling", "--upsampler", workdir, *data)
    out = tmp_path / "figures"
    assert run(*evaluate, "--image-size", 32, "--out", out) == 0
    assert json.loads((out / "results.json").read_text())["pictures"] == 2
    assert "| bicubic |" in capsys.readouterr().out
    # A second run from the weights of the first, at a rate that leaves them: beside
    # each other they have one figure, and two rows.
    sharp = tmp_path / "sharp"
    start = ("--initial", workdir, "--learning-rate", 1e-9, "--workdir", sharp)
    assert run(*train, *sizes, *start) == 0
    evaluate = ("evaluate", "upscaling", "--upsampler", workdir, sharp, *data)
    assert run(*evaluate, "--image-size", 32, "--out", out) == 0
    found = json.loads((out / "results.json").read_text())["psnr"]
    assert list(found) == ["nearest", "bicubic", "WDSR run", "WDSR sharp"]
    assert found["WDSR sharp"] == pytest.approx(found["WDSR run"], abs=1e-3)
    evaluate = ("evaluate", "upscaling", "--upsampler", workdir, workdir, *data)
    assert run(*evaluate, "--out", out) == 2
    assert "must differ in their names" in capsys.readouterr().err
