"""What a command says of the run that its folder holds already."""

import logging
import shlex

import pytest

pytest.importorskip("tensorflow")

from PIL import Image

from keras_parti import cli
from keras_parti.cli import notes
from keras_parti.cli.parser import build_parser

TOKENIZER = "keras-parti train tokenizer --data x --preset vit_vqgan_tiny"


@pytest.fixture
def begin(tmp_path, caplog):
    """Notes a command as having begun, and returns what is said of the one before."""
    caplog.set_level(logging.INFO, "keras_parti.training")

    def run(options, command=TOKENIZER):
        line = f"{command} --workdir {tmp_path}/run {options}"
        args = build_parser().parse_args(shlex.split(line)[1:])
        args.command_line = line
        caplog.clear()
        notes.begin(args)
        return caplog.text

    return run


@pytest.fixture(scope="module")
def folder_of_pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        colour = (60 * number, 9, 99)
        Image.new("RGB", (16, 16), colour).save(folder / f"{number}.png")
    return folder


def trained(folder, name="000002.npz"):
    path = folder / "run" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def noted(folder):
    return (folder / "run" / "commands.txt").read_text().splitlines()


def test_changed_options_of_a_run_that_goes_on_are_named(begin, tmp_path):
    begin("--learning-rate 1e-3 --average 0.9")
    trained(tmp_path)
    said = begin("--learning-rate 0.005 --l2-weight 1 --no-revive-codes --steps 3000")
    was = "with --learning-rate 0.001, with --average 0.9, without --no-revive-codes"
    now = "with --learning-rate 0.005, without --average, with --no-revive-codes"
    assert f"{tmp_path}/run was trained {was}; it goes on {now}." in said
    # From there on it is a run with these.
    assert not begin("--learning-rate 0.005 --no-revive-codes")
    assert len(noted(tmp_path)) == 3


@pytest.mark.parametrize(
    "options", ["", "--learning-rate 1e-3", "--steps 900", "--strategy cpu"]
)
def test_of_the_same_run_or_a_longer_one_nothing_is_said(begin, tmp_path, options):
    begin("--steps 500")
    trained(tmp_path)
    assert not begin(options)


def test_where_nothing_was_trained_yet_nothing_is_said(begin):
    begin("--learning-rate 1e-3")
    assert not begin("--learning-rate 5e-3")


def test_a_finished_run_says_that_other_options_need_another_folder(
    begin, tmp_path, capsys
):
    begin("--steps 200")
    assert "first step is compiled" in capsys.readouterr().out
    trained(tmp_path)
    said = begin("--steps 200 --learning-rate 5e-3")
    assert "nothing is left to train with --learning-rate 0.005" in said
    assert "choose another --workdir" in said
    assert not begin("--steps 200")
    assert len(noted(tmp_path)) == 1  # the others trained nothing
    assert capsys.readouterr().out == ""


def test_on_a_mesh_checkpoints_are_named_by_steps(begin, tmp_path):
    for name in ("tokens", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "vocabulary.model").touch()
    parti = (
        f"keras-parti train parti --data {tmp_path}/tokens --preset parti_tiny --vocab "
        f"{tmp_path}/vocabulary.model --mesh data:1 --layout data_parallel --steps 200"
    )
    begin("", parti)
    trained(tmp_path, "00000100.npz")
    assert "it goes on with --seed 3" in begin("--seed 3", parti)
    trained(tmp_path, "00000200.npz")
    assert "nothing is left to train with --seed 4" in begin("--seed 4", parti)


def test_a_command_that_cannot_be_read_any_more_is_passed_over(begin, tmp_path):
    begin("")
    trained(tmp_path)
    (tmp_path / "run" / "commands.txt").write_text(
        "keras-parti train tokenizer --old\n"
    )
    assert not begin("--learning-rate 5e-3")


def test_a_training_that_is_refused_leaves_no_note(
    folder_of_pictures, tmp_path, capsys
):
    def train(options):
        words = f"train tokenizer --data {folder_of_pictures} --steps-per-epoch 1"
        return cli.main(shlex.split(f"{words} --workdir {tmp_path}/run {options}"))

    tiny = "--preset vit_vqgan_tiny --batch-size 2"
    assert train(f"{tiny} --steps 1 --perceptual {tmp_path}/none.h5") == 2
    assert noted(tmp_path) == []
    assert train(f"{tiny} --steps 1") == 0
    assert train("--preset vit_vqgan_digits --batch-size 2 --steps 3") == 2
    assert train(f"{tiny} --steps 2") == 0
    assert [line[-9:] for line in noted(tmp_path)] == ["--steps 1", "--steps 2"]
    (tmp_path / "run" / "commands.txt").unlink()
    (tmp_path / "run" / "commands.txt").mkdir()  # nothing can be noted
    assert train(f"{tiny} --steps 3") == 2
    assert "commands.txt: Is a directory" in capsys.readouterr().err
