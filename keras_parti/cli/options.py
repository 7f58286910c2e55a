"""Words of the command line that several commands share: options and their types."""

import argparse
import difflib
import itertools
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

# How pictures are drawn: (kind, low, high, default, metavar, words). Written down here
# as well as in `keras_parti.sampling`, whose import takes seconds; a test compares.
SAMPLING = {
    "guidance_scale": (float, 0.0, 30.0, 1.2, "S", "how closely to follow the text; "
                       "1 is no guidance"),
    "temperature": (float, 0.0, 10.0, 1.0, "T", "how freely to draw; 0 takes the "
                    "likeliest id each time"),
    "top_k": (int, 0, 2**31 - 1, 0, "K", "draw from the K likeliest ids; 0 from all"),
    "top_p": (float, 0.0, 1.0, 1.0, "P", "draw from the fewest ids of probability P"),
}  # fmt: skip
NUM_SAMPLES, KEEP = 16, 4

# Bounds of 64-bit integers, from which on a range has no end worth saying.
LIMITLESS = 2**63 - 1

DATA = "a picture set: a name such as emoji_captions/small, or a folder of pictures"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and takes options by their full names only."""

    def __init__(self, **kwargs):
        super().__init__(
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=28, width=88
            ),
            allow_abbrev=False,
            **kwargs,
        )

    def parse_known_args(self, args=None, namespace=None):
        """Names a misspelt option before what it leaves missing."""
        for word in itertools.takewhile(lambda w: w != "--", args or ()):
            name = word.partition("=")[0]
            if self._subparsers is None and name.startswith("--"):
                known = self._option_string_actions
                if name not in known:
                    close = difflib.get_close_matches(name, known, 1)
                    hint = f"; did you mean {close[0]}?" if close else ""
                    self.error(f"there is no option {name}{hint}")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        self.exit(2, f"keras-parti: {message} (see `{self.prog} --help`)\n")


def add_command(commands, name, run, summary, description=None, example=None):
    """Adds a subcommand that runs `run`, "module:function" below `keras_parti.cli`."""
    text = description or summary[0].upper() + summary[1:] + "."
    epilog = "example:\n" + textwrap.indent(example, "  ") if example else None
    command = commands.add_parser(
        name, help=summary, description=textwrap.fill(text, 88), epilog=epilog
    )
    command.add_argument(
        "--debug", action="store_true", help="show tracebacks and what libraries log"
    )
    command.set_defaults(run=run, needs_tensorflow=True)
    return command


def option(command, flag, metavar, words, kind=str, default=None):
    """Adds an option that may be left out; the help says its range and default."""
    if allowed := getattr(kind, "allowed", ""):
        words += f"; {allowed}"
    if default is not None:
        words += f" (default {default})"
    command.add_argument(flag, metavar=metavar, type=kind, default=default, help=words)


def required(command, flag, metavar, words, kind=str):
    """Adds an option that must be given."""
    command.add_argument(flag, metavar=metavar, type=kind, required=True, help=words)


def add_tokenizer(command):
    """Adds `--tokenizer DIR`."""
    words = "workdir or model folder of a ViT-VQGAN"
    required(command, "--tokenizer", "DIR", words, folder)


def add_lpips(command):
    """Adds `--perceptual` to a command that measures pictures."""
    option(
        command,
        "--perceptual",
        "WEIGHTS",
        "measure LPIPS too, with these weights of VGG16: package, keras or a file, as "
        "`keras-parti train tokenizer` takes them",
    )


def add_vocab(command):
    """Adds `--vocab FILE`."""
    words = "vocabulary.model, from `keras-parti train vocab`"
    required(command, "--vocab", "FILE", words, file)


def add_preset(command, table):
    """Adds `--preset NAME`, a row of a table of `keras_parti.presets`."""
    command.add_argument(
        "--preset",
        metavar="NAME",
        required=True,
        choices=list(table),
        help=f"a size: {', '.join(table)}",
    )


def add_dtype(command, words=""):
    """Adds `--dtype POLICY`; `words` say more of it."""
    words = f". {words}" if words else ""
    command.add_argument(
        "--dtype",
        choices=["float32", "mixed_bfloat16"],
        default="float32",
        help=f"of the computation; weights are float32{words} (default float32)",
    )


def add_run(
    command: argparse.ArgumentParser,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    workdir: str | None = None,
) -> None:
    """Adds the options that all trainings have.

    Args:
        command: the parser to add them to.
        steps: int. This and the others are what an option is where it is left out.
        batch_size: int.
        learning_rate: float.
        warmup_steps: int.
        workdir: str. Where it is None, `--workdir` must be given.
    """
    if workdir is None:
        required(command, "--workdir", "DIR", "the run's folder", new_folder)
    else:
        option(
            command, "--workdir", "DIR", "the run's folder", new_folder, Path(workdir)
        )
    option(command, "--steps", "N", "batches of the whole run", integer(1), steps)
    option(command, "--batch-size", "N", "examples a batch", integer(1), batch_size)
    option(command, "--learning-rate", "R", "its peak", number(0), learning_rate)
    option(
        command,
        "--warmup-steps",
        "N",
        "batches in which the rate rises",
        integer(0),
        warmup_steps,
    )
    option(
        command,
        "--steps-per-epoch",
        "N",
        "batches between two checkpoints",
        integer(1),
        100,
    )
    option(command, "--seed", "N", "seed of weights and order", integer(0, 2**31), 0)
    command.add_argument(
        "--strategy",
        choices=["auto", "tpu", "gpu", "multi_worker", "cpu"],
        help="train on all these devices, each with the whole model and its share of a "
        "batch; left out, on the first device",
    )


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what `add_run` has read as arguments of a `train_...` function."""
    return {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "warmup_steps": args.warmup_steps,
        "steps_per_epoch": args.steps_per_epoch,
        "seed": args.seed,
        # A bar that redraws itself makes a log file unreadable.
        "verbose": "auto" if sys.stdout.isatty() else 2,
    }


def add_average(command):
    """Adds the moving average of the weights."""
    option(
        command,
        "--average",
        "M",
        "keep a moving average of the weights, with this momentum, such as 0.999",
        number(0, 1),
    )


def add_accumulation(command):
    """Adds batches that are learned from together."""
    option(
        command,
        "--accumulated-batches",
        "N",
        "batches whose mean gradient makes one update",
        integer(1),
        1,
    )


def add_sampling(command):
    """Adds the options of `SAMPLING`."""
    for name, (kind, low, high, default, metavar, words) in SAMPLING.items():
        parse = integer(low, high) if kind is int else number(low, high)
        flag = "--" + name.replace("_", "-")
        option(command, flag, metavar, words, parse, default)


def add_where(command):
    """Adds `--model DIR` or `--server HOST:PORT`, one of them, and `--name NAME`.

    Returns:
        The group of which one must be given, for more of its kind.
    """
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--model",
        metavar="DIR",
        type=folder,
        help="an exported model: its folder, or that of one version",
    )
    where.add_argument(
        "--server",
        metavar="HOST:PORT",
        type=address,
        help="where `keras-parti serve` or tensorflow_model_server listens",
    )
    option(command, "--name", "NAME", "the model's name on the server", str, "emoji")
    return where


def integer(low=-(2**63), high=2**63 - 1):
    """Returns a parser of integers in [low, high], for `type`."""
    return _ranged(int, "an integer of 64 bits", low, high)


def number(low=float("-inf"), high=float("inf")):
    """Returns a parser of numbers in [low, high], for `type`."""
    return _ranged(float, "a number", low, high)


def _ranged(kind, words, low, high):
    form = "g" if kind is float else ","
    if low > -LIMITLESS and high < LIMITLESS:
        allowed = f"{low:{form}} to {high:{form}}"
    else:
        allowed = f"{low:{form}} or more" if low > -LIMITLESS else ""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:  # True of a NaN as well
            raise argparse.ArgumentTypeError(
                f"must be {', '.join(filter(None, (words, allowed)))}. Received: {text}"
            )
        return value

    parse.allowed = allowed or words
    return parse


def folder(text):
    """Parses the path of a folder that must be there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def new_folder(text):
    """Parses the path of a folder to write to, which need not be there."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder. Received: the file {text}")
    return Path(text)


def file(text):
    """Parses the path of a file that must be there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


def picture_file(text):
    """Parses the path of a picture to write."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must end in .png. Received: {text}")
    return path


def address(text):
    """Parses HOST:PORT."""
    if not re.fullmatch(r".+:\d{1,5}", text):
        raise argparse.ArgumentTypeError(
            f"must be HOST:PORT, such as 127.0.0.1:8500. Received: {text}"
        )
    return text


def shard(text):
    """Parses I/N, 0 <= I < N, to a pair of ints."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    pair = tuple(map(int, match.groups())) if match else (0, 0)
    if pair[0] >= pair[1]:
        raise argparse.ArgumentTypeError(
            f"must be I/N with I below N, such as 0/4. Received: {text}"
        )
    return pair
