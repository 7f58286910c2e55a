"""The `keras-parti` command: one subcommand for each thing a user does.

What a subcommand needs is imported after its arguments are parsed, so that `--help`
and a mistyped option answer at once.
"""

import contextlib
import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_parti.cli import quiet
from keras_parti.cli.options import add_run, run_options
from keras_parti.cli.parser import build_parser

__all__ = ["add_run", "main", "run_options"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: list of str, or None for those of the process.

    Returns:
        int. The exit status: 0; 2 where something was wrong, said in one line on
        standard error; 130 where Ctrl-C ended it.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A prompt may hold what the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # after `--help`, or a mistake that was said
        return int(stop.code or 0)
    args.command_line = shlex.join(["keras-parti", *argv])
    module, _, function = args.run.partition(":")
    try:
        if args.needs_tensorflow:
            quiet.import_tensorflow(args.debug)
        module = importlib.import_module(f"keras_parti.cli.{module}")
        with _devices_of(args):
            getattr(module, function)(args)
    except KeyboardInterrupt as stop:
        print(str(stop) or _stopped(args), file=sys.stderr)
        return 130
    except Exception as error:
        if "before_training" in args:
            from keras_parti.cli import notes

            notes.take_back(args)
        words = explain(error)
        if args.debug or words is None:
            raise
        print(f"keras-parti: {_quoted(args, error)}{words}", file=sys.stderr)
        return 2
    return 0


def _stopped(args):
    """Returns what is said of Ctrl-C where it let nothing be saved."""
    checkpoints = getattr(args, "workdir", Path()) / "checkpoints"
    if "workdir" in args and any(checkpoints.glob("[0-9]*.npz")):
        return f"Stopped. The same command goes on from what is in {checkpoints}."
    return "Stopped."


def _quoted(args, error):
    """Returns the option whose value an error quotes, to begin its words with.

    The library names arguments of its own, and the system a path.
    """
    given = {word.partition("=")[0] for word in shlex.split(args.command_line)}
    words = str(error)
    for name, value in vars(args).items():
        flag = "--" + name.replace("_", "-")
        # A folder is made with those above it, of which one may be refused.
        places = [value, *value.parents] if isinstance(value, Path) else [value]
        if flag in given and any(f"'{place}'" in words for place in places):
            return "" if flag in words else f"{flag}: "
    return ""


def _devices_of(args):
    """Returns the scope of the strategy that a training was given."""
    kind = getattr(args, "strategy", None)
    if kind is None:
        return contextlib.nullcontext()
    from keras_parti.training.strategies import scope

    return scope(kind)


def explain(error):
    """Returns one line of words for an error, or None if it is of our own making."""
    words = str(error)
    if type(error).__module__.startswith("tensorflow."):
        # What a function of a dataset raises is left as words, amid TensorFlow's own.
        raised = re.search(
            r"(?:ValueError|OSError|FileNotFoundError): (.*?)\nTraceback", words, re.S
        )
        if raised is None:
            return None
        words = raised[1]
    elif not isinstance(error, (ValueError, OSError, ImportError)):
        return None
    elif isinstance(error, OSError) and error.strerror and error.filename:
        words = f"{error.filename}: {error.strerror}"
    words = " ".join(words.split()) or type(error).__name__
    if isinstance(error, ImportError):
        words += (
            ". Install what is missing: `pip install -r requirements.lock`, "
            "or `make demo`, which does it"
        )
    return words
