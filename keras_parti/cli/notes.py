"""What a run's folder notes of the commands that trained it, and who is told of it."""

import argparse
import contextlib
import io
import logging
import os
import shlex

import keras

from keras_parti.cli.parser import build_parser
from keras_parti.training.board import words_of, write_hparams
from keras_parti.training.checkpoints import newest
from keras_parti.training.workdir import model_dir

FILE = "commands.txt"
# What the parser notes beside the options that decide a training.
NO_SETTINGS = (
    "run",
    "command_line",
    "needs_tensorflow",
    "debug",
    "workdir",
    "before_training",
)
# Options that may change from one command of a run to the next: a run is made longer,
# or goes on with other devices.
FREE = ("steps", "strategy", "mesh", "layout", "rematerialise", "peak_tflops", "show")

# With the others of a training, which tell where it goes on.
logger = logging.getLogger("keras_parti.training.notes")


def begin(args: argparse.Namespace) -> None:
    """Fixes the weights that training begins with, and notes command and settings.

    A command that has nothing left to train is not noted. Options that are not those
    that the run was trained with so far are named.

    Args:
        args: what the parser has read, which remembers for `take_back`.
    """
    keras.utils.set_random_seed(args.seed)
    done = newest(args.workdir / "checkpoints")
    wanted = -(-args.steps // args.steps_per_epoch)
    if getattr(args, "mesh", None):
        wanted *= args.steps_per_epoch  # there a checkpoint's number is that of steps
    finished = done is not None and done[0] >= wanted
    before = _checkpoints(args.workdir)
    if before:
        _tell_changes(args, finished)
    if finished:
        return
    file = args.workdir / FILE
    size = file.stat().st_size if file.exists() else 0
    note(args)
    args.before_training = before, size
    write_hparams(args.workdir / "logs", _settings(args))
    print("The first step is compiled before it runs: up to a minute ...", flush=True)


def note(args: argparse.Namespace) -> None:
    """Adds a command to those of its workdir, which is made where it is not there."""
    args.workdir.mkdir(parents=True, exist_ok=True)
    with open(args.workdir / FILE, "a", encoding="utf-8") as notes:
        notes.write(args.command_line + "\n")


def take_back(args: argparse.Namespace) -> None:
    """Takes away the note of a command that ended before its first checkpoint.

    A training that was refused is none that the model has had.

    Args:
        args: what `begin` was given.
    """
    checkpoints, size = args.before_training
    if checkpoints == _checkpoints(args.workdir):
        os.truncate(args.workdir / FILE, size)


def commands(folders, vocabulary=None):
    """Returns the commands that the workdirs of all parts have noted, each once.

    Args:
        folders: list of workdirs or model folders, or None.
        vocabulary: path of the vocabulary's file, or None.
    """
    files = [model_dir(folder).parent / FILE for folder in folders if folder]
    if vocabulary:
        files.insert(0, vocabulary.parent / FILE)
    noted = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    return list(dict.fromkeys("\n".join(noted).splitlines()))


def _checkpoints(workdir):
    return set(workdir.rglob("checkpoints/[0-9]*.npz"))


def _tell_changes(args, finished):
    """Names the options that are not those of the last command."""
    now, before = _parsed(args.command_line), _last(args.workdir)
    if before is None or now is None or before.run != now.run:
        return
    before, now = _settings(before), _settings(now)
    changed = [n for n in now if n not in FREE and before.get(n) != now[n]]
    if not changed:
        return
    was, given = (
        ", ".join(_said(name, settings.get(name)) for name in changed)
        for settings in (before, now)
    )
    end = f"it goes on {given}"
    if finished:
        end = f"nothing is left to train {given}: choose another --workdir for it"
    logger.warning("%s was trained %s; %s.", args.workdir, was, end)


def _last(workdir):
    """Returns the last command that trained in a folder as the parser reads it."""
    path = workdir / FILE
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    lines = [line for line in lines if line.strip()]
    return _parsed(lines[-1]) if lines else None


def _parsed(line):
    """Returns a command's arguments; None where what it names is there no more."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return build_parser().parse_args(shlex.split(line)[1:])
        except SystemExit:
            return None


def _settings(args):
    return {name: v for name, v in vars(args).items() if name not in NO_SETTINGS}


def _said(name, value):
    """An option as a run has it."""
    flag = "--" + name.replace("_", "-")
    if value is None or value is False:
        return f"without {flag}"
    return f"with {flag}" if value is True else f"with {flag} {words_of(value)}"
