"""Tries the library on other versions of Python, TensorFlow and Keras: `make matrix`.

A cell is an interpreter and one end of the ranges of setup.py. For each an environment
is made of the wheel alone, which is some 2 GB to fetch and to keep while it is tried,
and a short part of the tests is run in it. Ends with a table and, where a cell failed,
status 1. `python tests/matrix.py 3.12 /path/to/python3.13` tries these.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
ENDS = ("lowest", "highest")
# Those whose versions move together, or that all else is built on.
RANGES = ("keras", "tensorflow", "tensorflow-text", "tensorflow-serving-api")
# A model, a loss, sampling, text in a graph, records on disk, an exported server.
SMOKE = [
    "test_window.py",
    "test_losses.py",
    "test_quantizer.py",
    "test_parti.py",
    "test_sampling.py",
    "test_text.py",
    "test_token_cache.py",
    "test_two_replicas.py",
    "test_export.py",
]


def find(version):
    """Returns the path of an interpreter that works, or None.

    Args:
        version: str, such as "3.12", or the path of one.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), shutil.which(version)]
    candidates += sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)
    for path in filter(None, candidates):
        asked = [path, "-c", "import venv"]
        if subprocess.run(asked, capture_output=True).returncode == 0:
            return path
    return None


def pins(end, requirements):
    """Returns what an end of the ranges adds to what pip is asked for.

    Args:
        end: one of `ENDS`.
        requirements: list of str, as in the wheel's metadata.
    """
    if end == "highest":  # what pip chooses by itself
        return []
    found = {}
    for requirement in requirements:
        if match := re.match(r"([\w.-]+).*?>=([\d.]+)", requirement.split(";")[0]):
            found[match[1]] = match[2]
    return [f"{name}=={found[name]}.*" for name in RANGES]


def run(log, *command):
    """Runs a command, its output in a file; returns whether it succeeded."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with open(log, "ab") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    return done.returncode == 0


def try_cell(interpreter, end, wheel, log):
    """Returns the versions of a cell, a dict of name to str, and what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
        required = importlib.metadata.requires("keras-parti")
        tests = [
            requirement.split(";")[0]
            for requirement in required
            if re.match("pytest==|hypothesis", requirement)
        ]
        steps = (
            ("no environment", [interpreter, "-m", "venv", Path(folder, "venv")]),
            ("not installed", [*pip, wheel, *pins(end, required), *tests]),
        )
        for failure, command in steps:
            if not run(log, *command):
                return {}, failure
        script = (
            "import json, sys, importlib.metadata as m; print(json.dumps({'python': "
            "sys.version.split()[0], **{x: m.version(x) for x in sys.argv[1:]}}))"
        )
        reply = subprocess.check_output([python, "-c", script, *RANGES[:2]])
        # Another version may warn of other things, which is no failure.
        smoke = [python, "-m", "pytest", "-q", "-W", "default"]
        smoke += ["-p", "no:cacheprovider", "--basetemp", Path(folder, "tests")]
        passed = run(log, *smoke, *(f"tests/{name}" for name in SMOKE))
        return json.loads(reply), "passed" if passed else "FAILED"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs="*", default=VERSIONS)
    parser.add_argument("--end", choices=ENDS, action="append")
    parser.add_argument("--logs", type=Path, default=ROOT / "build" / "matrix")
    args = parser.parse_args(argv)
    args.logs.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        command = [*build, "--no-build-isolation", "--wheel-dir", folder, ROOT]
        shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        rows, failed = [], False
        cells = [(name, end) for name in args.python for end in args.end or ENDS]
        for name, end in tqdm(cells, "cells", disable=None):
            start = time.monotonic()
            if interpreter := find(name):
                log = args.logs / f"{Path(name).name}-{end}.log"
                log.unlink(missing_ok=True)
                versions, result = try_cell(interpreter, end, wheel, log)
                failed |= result != "passed"
            else:
                versions, result = {}, "skipped: no such interpreter"
            minutes = (time.monotonic() - start) / 60
            parts = [versions.get(x, "-") for x in ("python", *RANGES[:2])]
            rows.append([name, end, *parts, result, f"{minutes:.0f} min"])
    rows.insert(0, ["interpreter", "end", "python", *RANGES[:2], "result", "time"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{x:{w}}" for x, w in zip(row, widths, strict=True)).rstrip())
    print(f"\nWhat each cell wrote lies in {args.logs}.")
    return failed


if __name__ == "__main__":
    sys.exit(main())
