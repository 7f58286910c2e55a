"""Every example runs to its end with `--quick`, as its first lines promise."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))

# What a replica cannot do: a mesh is another road to many devices.
ALONE = {"train_on_mesh"}

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


@pytest.mark.slow
@every_example
def test_example_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, os.fspath(path), "--quick", *_strategy(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_example
def test_example_says_its_command_and_its_cost(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{path.name}" in text
    assert "minute" in text or "hour" in text or " s " in text


@every_example
def test_a_training_example_takes_a_strategy(path):
    training = path.stem.startswith(("train_", "finetune_")) and path.stem not in ALONE
    assert bool(_strategy(path)) == training


def _strategy(path):
    text = path.read_text(encoding="utf-8")
    return ["--strategy", "cpu"] if "with scope(args.strategy):" in text else []
