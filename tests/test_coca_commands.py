"""The commands that train a CoCa, measure it, and serve a chain with it."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from PIL import Image

from keras_parti.cli import main
from keras_parti.text import train_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vocabulary, and pictures of plain colours, some of them held out."""
    folder = tmp_path_factory.mktemp("coca")
    for split, count in (("train", 6), ("validation", 5)):
        (folder / "set" / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((12, 12, 3), 40 * number, "uint8")
            path = folder / "set" / split / f"grey{number}.png"
            Image.fromarray(pixels).save(path)
            if number:  # one has no caption, but a name
                path.with_suffix(".txt").write_text(f"a picture of {40 * number}\n")
    texts = [f"a picture of {40 * number}" for number in range(6)]
    train_vocabulary(texts, folder / "v.model", 280)
    return folder


def test_a_coca_is_trained_and_measured(folder, capsys):
    data = ["--data", str(folder / "set")]
    vocab = ["--vocab", str(folder / "v.model")]
    run = ["--workdir", str(folder / "run"), "--steps", "4", "--steps-per-epoch", "2"]
    preset = ["--preset", "coca_tiny", "--batch-size", "3"]
    assert main(["train", "coca", *data, *vocab, *preset, *run]) == 0
    printed = capsys.readouterr().out
    assert "Next: keras-parti export --coca" in printed
    assert "train coca" in (folder / "run" / "commands.txt").read_text()
    (noted,) = (folder / "run" / "logs").glob("events*")
    told = noted.read_bytes()  # for TensorBoard's page of hyperparameters
    assert b"learning_rate" in told
    assert b"coca_tiny" in told
    assert b"command_line" not in told
    out = ["--out", str(folder / "out")]
    coca = ["--coca", str(folder / "run")]
    assert main(["evaluate", "matching", *coca, *vocab, *data, *out]) == 0
    results = json.loads((folder / "out" / "results.json").read_text())
    found = results["recall"]["validation"]
    assert found["queries"] == 5
    assert found["chance@1"] == pytest.approx(0.2)
    assert found["image_to_text@5"] == found["text_to_image@5"] == 1.0
    assert "picture → text @1" in capsys.readouterr().out


def test_parts_that_do_not_go_together_are_one_line(folder, capsys):
    here = str(folder)
    vocab = ["--vocab", str(folder / "v.model")]
    command = ["evaluate", "matching", "--coca", here, "--data", here, "--out", here]
    assert main([*command, *vocab, "--parti", here]) == 2
    assert "--parti and --tokenizer go together" in capsys.readouterr().err
    command = ["train", "coca", "--data", "nowhere:0", "--workdir", here]
    assert main([*command, *vocab, "--preset", "coca_tiny"]) == 2
    assert "must be a number, 1e-09 or more" in capsys.readouterr().err
