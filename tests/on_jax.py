"""Starts tests again on JAX, as on a machine without TensorFlow."""

import os
import subprocess
import sys

SCRIPT = (
    "import sys; sys.modules['tensorflow'] = None; import pytest; "
    "sys.exit(pytest.main(sys.argv[1:]))"
)


def run_on_jax(file, expected):
    """Runs a file of tests; fails with its output.

    Args:
        file: str. The file.
        expected: path of a folder, which it finds in `KERAS_PARTI_EXPECTED`.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "-q", "-p", "no:cacheprovider", file],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "KERAS_PARTI_EXPECTED": os.fspath(expected),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
