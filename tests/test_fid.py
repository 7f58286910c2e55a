"""Statistics of pictures, from folders, files, shards and models; and the commands."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_parti import cli
from keras_parti.evaluation import fid
from keras_parti.evaluation.prompt_run import read_records
from keras_parti.evaluation.statistics import Statistics
from keras_parti.models import ViTVQGAN
from keras_parti.pixels import to_floats, to_uint8

HEADER = "Prompt\tCategory\tChallenge\tNote\n"


def picture(seed, height=37, width=41):
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (3, 5, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A captioned folder of 23 pictures in `train`, 11 in `validation`."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 23), ("validation", 11)):
        (root / split).mkdir()
        for i in range(count):
            path = root / split / f"{i:02d}.png"
            picture(i if split == "train" else 100 + i).save(path)
            path.with_suffix(".txt").write_text(f"thing {i}\nit, {i}, again\n")
    return root


def statistics_of(source, network, **options):
    pictures, total = fid.named_pictures(source, 32, **options)
    return fid.picture_statistics(pictures, network, total)


def test_statistics_of_splits_join_to_those_of_all(folder):
    network = fid.feature_network("pixels")
    whole = statistics_of(folder, network)
    joined = fid.collect(
        [f"{folder}:train", f"{folder}:validation"], network, image_size=32
    )
    assert (whole.count, joined.count) == (34, 34)
    np.testing.assert_allclose(joined.mean, whole.mean, atol=1e-9)
    np.testing.assert_allclose(joined.scatter, whole.scatter, atol=1e-9)


def test_more_pictures_than_there_are_come_again_as_other_crops(folder):
    network = fid.feature_network("pixels")
    source = f"{folder}:validation"
    twice, total = fid.named_pictures(
        source, 32, augment="transformer", count=22, seed=3
    )
    twice = list(twice)
    assert total == len(twice) == 22
    assert len({name for name, _ in twice}) == 22
    by_key = {}
    for name, image in twice:
        by_key.setdefault(name.partition("#")[0], []).append(image)
    assert sorted(map(len, by_key.values())) == [2] * 11
    assert any((first != second).any() for first, second in by_key.values())
    plain = statistics_of(source, network, count=22, seed=3)
    once = statistics_of(source, network)
    np.testing.assert_allclose(plain.mean, once.mean, atol=1e-9)


def test_captions_are_those_of_the_chosen_pictures(folder):
    prompts = fid.captions(f"{folder}:validation", count=22, seed=3)
    assert [p.index for p in prompts] == list(range(22))
    assert sorted(p.text for p in prompts) == sorted(
        [f"thing {i}" for i in range(11)] + [f"it, {i}, again" for i in range(11)]
    )
    with pytest.raises(ValueError, match="has no split test"):
        fid.captions(f"{folder}:test")


def test_pictures_of_several_sizes_are_refused():
    network = fid.feature_network("pixels")
    pictures = [(str(i), np.zeros((32, 30 + i, 3), np.uint8)) for i in range(3)]
    with pytest.raises(ValueError, match="must have one size"):
        fid.picture_statistics(pictures, network)


def test_only_the_fids_own_network_gives_what_is_called_so(tmp_path):
    random = np.random.default_rng(0)
    sides = {}
    for network in ("inception", "pixels"):
        for side in "ab":
            made = Statistics(3, 0, network)
            made.add([str(i) for i in range(20)], random.normal(size=(20, 3)))
            sides[side] = made
        table = fid.write_comparison(fid.compare(sides["a"], sides["b"]), tmp_path)
        assert ("| FID |" in table) == (network == "inception")
        assert "too large" in table  # so few pictures


def test_the_command_draws_compares_and_goes_on_from_its_files(
    exported, folder, tmp_path, capsys
):
    shutil.copytree(exported, tmp_path / "models" / "toy" / "1")
    common = ["--features", "pixels", "--image-size", "32"]
    against = ["--against", f"{folder}:validation"]
    out = ["--out", str(tmp_path / "a")]
    draw = ["--model", str(tmp_path / "models" / "toy"), "--num-samples", "2"]
    assert cli.main(["evaluate", "fid", *draw, *against, *common, *out]) == 0
    assert "Fréchet distance, pixels" in capsys.readouterr().out
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert (results["pictures"], results["real_pictures"]) == (11, 11)
    records = read_records(tmp_path / "a")
    assert len(records) == 22
    assert {r["prompt"] for r in records} == {f"thing {i}" for i in range(11)}
    files = [str(tmp_path / "a" / f"{side}.npz") for side in ("drawn", "real")]
    again = ["--images", files[0], "--against", files[1], "--out", str(tmp_path / "b")]
    assert cli.main(["evaluate", "fid", *again]) == 0
    assert json.loads((tmp_path / "b" / "results.json").read_text()) == results


def test_a_tokenizer_is_measured_by_its_reconstructions(folder, tmp_path, capsys):
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    tokenizer.save_dir(tmp_path / "tokenizer")
    command = ["evaluate", "fid", "--tokenizer", str(tmp_path / "tokenizer")]
    command += ["--features", "pixels", "--out", str(tmp_path / "out"), "--against"]
    assert cli.main([*command, f"{folder}:validation"]) == 0
    pictures, _ = fid.named_pictures(
        f"{folder}:validation", tokenizer.config.image_size
    )
    originals = np.stack([image for _, image in pictures])
    rebuilt = to_uint8(np.asarray(tokenizer.reconstruct(to_floats(originals))))
    network = fid.feature_network("pixels")
    for side, images in (("real", originals), ("drawn", rebuilt)):
        found = Statistics.load(tmp_path / "out" / f"{side}.npz")
        assert found.count == 11
        expected = network(images)["features"].mean(axis=0)
        np.testing.assert_allclose(found.mean, expected, atol=1e-6)
    for wrong, message in (
        ([f"{folder}:validation", "--image-size", "64"], "--image-size must be"),
        ([str(tmp_path / "out" / "real.npz")], "pictures, not statistics"),
    ):
        assert cli.main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_the_command_draws_prompts_and_writes_the_page(exported, tmp_path, capsys):
    shutil.copytree(exported, tmp_path / "toy" / "1")
    (tmp_path / "p.tsv").write_text(HEADER + "a fox\tAnimals\tBasic\t\n \tNo\tNo\t\n")
    where = ["--model", str(tmp_path / "toy"), "--prompts", str(tmp_path / "p.tsv")]
    run = ["evaluate", "parti-prompts", *where, "--num-samples", "3"]
    assert cli.main([*run, "--out", str(tmp_path / "a"), "--shard", "1/2"]) == 0
    assert "3 pictures are not drawn yet" in capsys.readouterr().out
    assert cli.main([*run, "--out", str(tmp_path / "a")]) == 0
    assert "not drawn yet" not in capsys.readouterr().out
    assert len(read_records(tmp_path / "a")) == 6
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert '"toy, version 1"' in page
    changed = [*run, "--out", str(tmp_path / "a"), "--top-k", "5"]
    assert cli.main(changed) == 2
    assert "Choose another folder" in capsys.readouterr().err
