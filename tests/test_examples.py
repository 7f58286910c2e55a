"""Every example runs to its end with `--quick`, as its first lines promise."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


@pytest.mark.slow
@every_example
def test_example_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, os.fspath(path), "--quick"],
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
