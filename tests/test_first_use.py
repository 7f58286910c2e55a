"""What a newcomer stumbled over once: help, mistakes, and what the commands say."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_parti import cli
from keras_parti.cli.options import integer, number
from keras_parti.cli.parser import build_parser


def commands(parser=None, words=()):
    """Yields the words and the parser of each command, the first included."""
    parser = parser or build_parser()
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from commands(child, (*words, name))


def test_a_plan_needs_nothing_that_is_not_required():
    """Keras' NumPy backend imports SciPy, which only the tests' packages bring."""
    script = (
        "import sys; sys.modules['scipy'] = None\n"
        "from keras_parti import cli\n"
        "words = 'plan --preset parti_3b --mesh data:2;model:2'.split()\n"
        "assert cli.main(words) == 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "parameters a device" in done.stdout


def test_the_folder_above_a_clone_does_not_hide_the_library(tmp_path):
    """A clone called keras_parti is, from above, a package without contents."""
    (tmp_path / "keras_parti").mkdir()
    script = "import keras_parti; print(keras_parti.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_nobody_is_sent_to_a_package_index_for_this_library():
    """It is not there: what is of that name is of others."""
    for path in Path(cli.__file__).parents[1].rglob("*.py"):
        text = "".join(path.read_text(encoding="utf-8").split())
        assert "keras-parti[" not in text, path


def test_help_is_never_wider_than_a_terminal():
    """Examples apart, which are to be copied whole."""
    for words, parser in commands():
        text = parser.format_help().partition("\nexample:\n")[0]
        wide = [line for line in text.splitlines() if len(line) > 88]
        assert not wide, (words, wide)


def test_help_says_the_range_of_each_number():
    for words, parser in commands():
        for action in parser._actions:
            allowed = getattr(action.type, "allowed", "")
            for bound in re.findall(r"\S*\d\S*", allowed):
                assert bound in action.help, (words, action.option_strings)
            assert allowed or "--seed" not in action.option_strings, words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train vocab --dat x --workdir y", "no option --dat; did you mean --data?"),
        ("demo --sed=3", "no option --sed; did you mean --seed?"),
        ("presets --xyzzy", "no option --xyzzy (see"),
    ],
)
def test_a_misspelt_option_is_named_with_what_is_near(line, said, capsys):
    assert cli.main(line.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["train vocab --data x --workdir f", "convert --weights f --out f"]
)
def test_a_file_in_place_of_a_folder_to_write_is_said_to_be(
    line, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").touch()
    assert cli.main(line.split()) == 2
    said = capsys.readouterr().err
    assert re.search(r"--(out|workdir): must be a folder. Received: the file f", said)


@pytest.mark.parametrize(
    "line", ["generate x --model m --out f/a.png", "explain x --model m --out f/a.png"]
)
def test_a_picture_that_cannot_be_written_is_not_drawn_first(
    line, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").touch()  # a file: a folder without rights stops no superuser
    (tmp_path / "m").mkdir()  # no model, which would be found out next
    assert cli.main(line.split()) == 2
    assert "Cannot write f/a.png: f: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "--data pictres",
            "--data: There is no picture set 'pictres'. Did you mean p",
        ),
        ("--data=emoji_caption/small", "Did you mean emoji_captions/small?"),
        ("--data README.md", "--data: A picture set is a name or a folder, that of"),
        ("--data ./README.md", "Received: the file './README.md'"),
        ("--data .", "--workdir: notes.txt/v: Not a directory"),
    ],
)
def test_an_option_whose_value_is_wrong_is_named(
    options, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr("keras_parti.cli.train.train_set_vocabulary", small_vocabulary)
    assert cli.main(f"train vocab {options} --workdir notes.txt/v".split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("train tokenizer --data no --preset vit_vqgan_tiny --workdir {}", "x"),
        ("train upsampler --data no --preset wdsr_tiny --workdir {}", "x"),
        (
            "train coca --data no --vocab v.model --preset coca_tiny --workdir {}",
            "x",
        ),
        ("export --tokenizer t --parti t --out {}", "a/b"),
        ("export --tokenizer t --vim t --out {}", "x"),
    ],
)
def test_a_refused_command_leaves_no_folder(line, folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    from keras_parti.models import ViTVQGAN
    from keras_parti.text import train_vocabulary

    monkeypatch.chdir(tmp_path)
    train_vocabulary(["a fox", "an owl"] * 9, "v.model", 300)
    ViTVQGAN.from_preset("vit_vqgan_tiny").save_dir("t")
    assert cli.main(line.format(folder).split()) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t", "v.model"]


def small_vocabulary(data, path, size):
    """The vocabulary of a set that need not hold more than is asked of it."""
    from keras_parti.data.datasets import open_set
    from keras_parti.text import train_vocabulary

    if data != ".":
        open_set(data)
    train_vocabulary(["a fox", "an owl"] * 9, path, 300)
    return 18


def test_what_the_system_refuses_is_said_in_words(tmp_path):
    with pytest.raises(OSError, match="Errno 2") as caught:
        (tmp_path / "gone" / "picture.png").write_bytes(b"")
    path = tmp_path / "gone" / "picture.png"
    assert cli.explain(caught.value) == f"{path}: No such file or directory"


def test_after_two_dashes_a_prompt_may_look_like_an_option():
    assert build_parser().parse_args(["demo", "--", "--dat"]).prompts == ["--dat"]


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (integer(1), "0", "must be an integer of 64 bits, 1 or more. Received: 0"),
        (integer(0, 65535), "x", "64 bits, 0 to 65,535. Received: x"),
        (integer(), "9" * 30, "must be an integer of 64 bits. Received: 9"),
        (number(0, 1), "nan", "must be a number, 0 to 1. Received: nan"),
        (number(1e-6), "0", "must be a number, 1e-06 or more. Received: 0"),
    ],
)
def test_a_number_out_of_range_is_told_what_is_allowed(parse, text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        parse(text)
