"""Deliberate bugs, one line each, and the test that has to notice: `make mutations`.

Each is put into a copy of the package, never into the working tree, and its test is run
on that copy: it has to fail there, and to pass on a copy without bugs. What survives is
a hole in the tests. `python tests/mutations.py WORD ...` runs those whose file or test
holds one of the words.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mutation_table
import mutation_table_at_work
from tqdm import tqdm

MUTATIONS = [*mutation_table.MUTATIONS, *mutation_table_at_work.MUTATIONS]

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_parti"
TIMEOUT = 300  # seconds; a bug may make a loop endless

# What pytest's status says of a run on a copy with a bug.
OUTCOMES = {0: "SURVIVED", 1: "caught"}


class Result(NamedTuple):
    """What became of a mutation."""

    outcome: str
    seconds: float
    output: str


def mutated(mutation):
    """Returns a file's text with the bug in it.

    Raises:
        ValueError: the old text is not there exactly once.
    """
    text = (PACKAGE / mutation.file).read_text(encoding="utf-8")
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(
            f"{mutation.file} must hold the old text once. "
            f"Received: {count} times {mutation.old!r}"
        )
    return text.replace(mutation.old, mutation.new)


def run_tests(tests, mutation=None):
    """Runs tests on a copy of the package; returns pytest's process.

    Args:
        tests: list of str, node ids below `tests/`.
        mutation: `Mutation` for the copy, or None.
    """
    with tempfile.TemporaryDirectory() as folder:
        # With its compiled files, which stay valid but for the changed one.
        shutil.copytree(PACKAGE, Path(folder, "keras_parti"))
        if mutation:
            path = Path(folder, "keras_parti", mutation.file)
            path.write_text(mutated(mutation), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header"]
        command += ["-p", "no:cacheprovider", "--basetemp", f"{folder}/tests"]
        environment = {
            **os.environ,
            "PYTHONPATH": folder,
            "PYTHONSAFEPATH": "1",  # else the working tree would come first
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        return subprocess.run(
            [*command, *(f"tests/{test}" for test in tests)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT if mutation else None,
        )


def try_one(mutation):
    """Runs a mutation's test on the bug."""
    start = time.monotonic()
    try:
        done = run_tests([mutation.test], mutation)
    except subprocess.TimeoutExpired:
        return Result("ENDLESS", time.monotonic() - start, "")
    # Any other status is no verdict: an import that breaks, a test that is not there.
    outcome = OUTCOMES.get(done.returncode, f"NOT RUN ({done.returncode})")
    return Result(outcome, time.monotonic() - start, done.stdout)


def chosen(words):
    """The mutations whose file or test holds one of the words; all for no words."""
    return [
        mutation
        for mutation in MUTATIONS
        if not words or any(w in mutation.file + mutation.test for w in words)
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="run those of these files or tests")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="tests at a time"
    )
    args = parser.parse_args(argv)
    mutations = chosen(args.words)
    for mutation in mutations:
        mutated(mutation)  # all of them can be applied, before any is run
    tests = sorted({mutation.test for mutation in mutations})
    print(f"{len(tests)} tests without a bug ...", flush=True)
    done = run_tests(tests)
    if done.returncode:
        print(done.stdout)
        return 1
    with ThreadPoolExecutor(args.jobs) as pool:
        running = pool.map(try_one, mutations)
        bar = tqdm(running, "bugs", len(mutations), disable=None)
        results = list(bar)
    width = max(len(mutation.file) for mutation in mutations)
    for mutation, result in zip(mutations, results, strict=True):
        place = f"{mutation.file:{width}}  {result.outcome:8}  {result.seconds:3.0f} s"
        print(f"{place}  {mutation.test}")
    missed = [
        pair
        for pair in zip(mutations, results, strict=True)
        if pair[1].outcome != "caught"
    ]
    for mutation, result in missed:
        print(f"\n{mutation.file}: {mutation.old!r}\n-> {mutation.new!r}")
        print(result.output[-3000:])
    print(f"\n{len(mutations) - len(missed)} of {len(mutations)} bugs were caught.")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
