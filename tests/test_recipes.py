"""The recipes of the papers' runs are commands that exist, and run on mock data."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keras_parti.cli.parser import build_parser

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
SHARED = {"recipe.py", "mock_data.py"}
RECIPES = sorted(p for p in FOLDER.glob("*.py") if p.name not in SHARED)
NEEDED = {
    "coco_zero_shot": ["model"],
    "coco_finetuned": ["tokenizer", "vocab", "parti", "coca"],
}

each = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def start(path, folder, *options):
    command = [sys.executable, str(path), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.slow
@each
def test_a_recipe_runs_on_mock_data(path, tmp_path):
    done = start(path, tmp_path, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| precision |" in done.stdout
    assert ("mean CoCa score" in done.stdout) == path.stem.startswith("coco")
    assert not list(tmp_path.iterdir())


@each
def test_every_command_of_a_recipe_parses(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [f"--{name}={name}.model" for name in NEEDED.get(path.stem, [])]
    done = start(path, tmp_path, "--print", "--folder", "data", *given)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^keras-parti .+$", done.stdout, re.MULTILINE)
    assert commands
    assert "{" not in done.stdout
    for command in commands:
        words = shlex.split(command)[1:]
        for word in words:  # what was given, and what the commands before would write
            if word.endswith(".pth") or word == "vocab.model":
                Path(word).parent.mkdir(exist_ok=True)
                Path(word).touch()
            elif word.startswith(("runs/", "data/")) or word.endswith(".model"):
                Path(word).mkdir(parents=True, exist_ok=True)
        assert build_parser().parse_args(words).run


@each
def test_a_recipe_says_what_it_needs(path, tmp_path):
    done = start(path, tmp_path)
    assert done.returncode == 2
    assert "needs --quick, or --folder" in done.stderr
    for name in NEEDED.get(path.stem, []):
        assert f"--{name}" in done.stderr


def test_the_page_of_the_recipes_names_them_all():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.py)`", page, re.MULTILINE)
    assert sorted(rows) == [path.name for path in RECIPES]
