"""Every example runs to its end with `--quick`, and all are of one shape."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "quick.py"})
TRAININGS = [
    path
    for path in EXAMPLES
    if path.stem.startswith(("train_", "finetune_", "linear_probe"))
]

# Seconds. Each takes about thirty; one that hangs must not hang whoever runs it. How
# long they took is what `--durations=0` says, and no test, for machines differ.
TIMEOUT = 300

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def run_quickly(path, folder):
    # A mesh is another road to many devices.
    strategy = path in TRAININGS and path.stem != "train_on_mesh"
    command = [sys.executable, os.fspath(path), "--quick"]
    done = subprocess.run(
        [*command, "--strategy", "cpu"] if strategy else command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documentation(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return " ".join(text.split())


@pytest.mark.slow
@every_example
def test_an_example_runs(path, tmp_path):
    run_quickly(path, tmp_path)
    written = [found.relative_to(tmp_path).parts[:2] for found in tmp_path.glob("*/*")]
    assert written == [("runs", "quick")]


@pytest.mark.slow
def test_a_training_example_goes_on_by_the_same_command(tmp_path):
    path = FOLDER / "train_tokenizer.py"
    assert "Epoch 2/2" in run_quickly(path, tmp_path)
    assert "Epoch" not in run_quickly(path, tmp_path)


@every_example
def test_an_example_says_its_commands_its_cost_and_what_was_measured(path):
    text = documentation(path)
    assert f"python examples/{path.name} --quick python examples/{path.name} --" in text
    assert re.search(r" Cost: .+\. Measured: .+\.", text)


@every_example
def test_examples_have_the_same_shape(path):
    """A file is read, and copied, as the one before it."""
    text = path.read_text(encoding="utf-8")
    shape = ["def main(argv=None):", "description=__doc__.splitlines()[0]"]
    if path in TRAININGS:
        shape += [
            '    parser.add_argument("--data", ',
            '    parser.add_argument("--preset',
        ]
        if path.stem == "finetune_detokenizer":  # the tokenizer decides it
            shape.pop()
        shape.append("    add_run(parser, ")  # --workdir to --strategy, as the commands
    else:
        shape.append('    parser.add_argument("--seed", type=int, default=0, help="of')
    shape += [
        '    parser.add_argument("--quick", action="store_true", help="tiny, in half a '
        'minute")\n    args = parser.parse_args(argv)\n',
        "import quick\n",
        'if __name__ == "__main__":\n    main()\n',
    ]
    places = [text.find(part) for part in shape]
    assert -1 not in places, shape[places.index(-1)]
    if path.stem != "serve_client":  # whose server stands ahead of its `main`
        assert places == sorted(places)


def test_the_table_has_every_example_with_its_cost_and_result():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+\.py)\]\(\1\) \| .+ \| (.+) \| (.+) \|$", text, re.M)
    assert [name for name, *_ in rows] != []
    assert sorted(name for name, *_ in rows) == [path.name for path in EXAMPLES]
    for name, cost, measured in rows:
        text = documentation(FOLDER / name)
        assert f"Cost: {cost}" in text, name
        assert f"Measured: {measured}" in text, name
