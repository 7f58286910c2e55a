"""The recipes of the papers' runs are commands that exist, with figures that do."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from keras_parti.cli.parser import build_parser

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("*.sh"))
NAMES = ("FOLDER", "MODEL", "TOKENIZER", "VOCAB", "PARTI", "COCA", "PRESET", "OUT")

each = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@each
def test_every_command_of_a_recipe_parses(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^keras-parti .+$", text, re.MULTILINE)
    assert commands
    for name in ("data", "runs"):
        Path(name).mkdir()
    values = dict.fromkeys(NAMES, "data") | {"PRESET": "parti_3b", "RUNS": "runs"}
    values["VOCAB"] = "vocabulary.model"
    for command in commands:
        words = re.sub(r"\$(\w+)", lambda match: values[match[1]], command)
        words = shlex.split(words)[1:]
        for word in words:  # what the commands before would have written
            if word.startswith("runs/"):
                Path(word).mkdir(parents=True, exist_ok=True)
            elif word.endswith((".pth", ".model")):
                Path(word).touch()
        assert build_parser().parse_args(words).run


@each
def test_a_recipe_is_sound_and_says_what_it_needs(path, tmp_path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    done = subprocess.run(
        ["bash", str(path)], capture_output=True, text=True, cwd=tmp_path, env={}
    )
    assert done.returncode
    assert "FOLDER: the folder that holds" in done.stderr


@each
def test_python_inside_a_recipe_compiles(path):
    text = path.read_text(encoding="utf-8")
    for program in re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON", text, re.DOTALL):
        compile(program, path.name, "exec")


def test_the_page_of_the_recipes_names_them_all():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"`(\w+\.sh)`", page)) == [path.name for path in RECIPES]
