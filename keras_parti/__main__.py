"""`python -m keras_parti` and `keras-parti`, where Ctrl-C is quiet from the start."""

import sys


def main() -> int:
    """Runs the command, see `keras_parti.cli.main`."""
    try:
        from keras_parti.cli import main as run

        return run()
    except KeyboardInterrupt:  # before, or after, the command takes care of it
        sys.stderr.write("Stopped.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
