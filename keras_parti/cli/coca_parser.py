"""The arguments of the commands that train and measure a CoCa."""

from pathlib import Path

from keras_parti import presets
from keras_parti.cli.options import (
    DATA,
    NUM_SAMPLES,
    add_average,
    add_command,
    add_preset,
    add_run,
    add_vocab,
    folder,
    integer,
    new_folder,
    number,
    option,
    required,
)


def add_coca_training(parts):
    """Adds `train coca`."""
    command = add_command(
        parts,
        "coca",
        "train:coca",
        "a CoCa, which ranks a Parti's pictures",
        "Trains a CoCa to tell which caption belongs to which picture, and to write "
        "captions.",
        "keras-parti train coca --data emoji_captions/small --vocab "
        "runs/vocab/vocabulary.model --tokenizer runs/tokenizer --preset coca_emoji "
        "--workdir runs/coca",
    )
    command.add_argument(
        "--data",
        metavar="NAME[:WEIGHT]",
        type=weighted_set,
        action="append",
        required=True,
        help="a picture set with captions; several are mixed by weight, and the first "
        "one's split validation is what recall is measured on",
    )
    add_vocab(command)
    add_preset(command, presets.COCA)
    option(
        command,
        "--tokenizer",
        "DIR",
        "show some pictures as this ViT-VQGAN reconstructs them",
        folder,
    )
    option(
        command,
        "--reconstructed",
        "R",
        "with --tokenizer: the share of these pictures",
        number(0, 1),
        0.5,
    )
    option(
        command, "--shift", "N", "pixels a picture is moved by at most", integer(0), 4
    )
    option(
        command,
        "--flip-rate",
        "R",
        "how often a picture is mirrored",
        number(0, 1),
        0.5,
    )
    add_average(command)
    option(
        command,
        "--together",
        "N",
        "pictures of one name that follow each other at most, so that a text chooses "
        "among its styles",
        integer(1),
        1,
    )
    add_run(command, steps=3000, batch_size=64, learning_rate=8e-4, warmup_steps=100)


def add_matching_evaluation(kinds):
    """Adds `evaluate matching`."""
    command = add_command(
        kinds,
        "matching",
        "measure:matching",
        "whether a CoCa finds captions, and chooses well",
        "Looks for the caption of each held-out picture among all of its split, and "
        "the other way round. With --parti and --tokenizer it also draws pictures of "
        "held-out captions, and compares which of them CoCa and the likelihood choose. "
        "Goes on where it was interrupted.",
        "keras-parti evaluate matching --coca runs/coca --vocab "
        "runs/vocab/vocabulary.model --data emoji_captions/small \\\n"
        "  --parti runs/parti --tokenizer runs/tokenizer --out results/matching",
    )
    required(command, "--coca", "DIR", "workdir or model folder of a CoCa", folder)
    add_vocab(command)
    required(command, "--data", "NAME", DATA)
    required(command, "--out", "DIR", "where to write", new_folder)
    option(command, "--parti", "DIR", "workdir or model folder of a Parti", folder)
    option(command, "--tokenizer", "DIR", "that of its ViT-VQGAN", folder)
    words = "pictures drawn for a prompt"
    option(command, "--num-samples", "N", words, integer(1), NUM_SAMPLES)
    words = "how closely to follow the text; 1 is no guidance"
    option(command, "--guidance-scale", "S", words, number(0, 30), 1.0)
    option(command, "--count", "N", "prompts at most", integer(1), 100)
    option(command, "--seed", "N", "seed of prompts and pictures", integer(), 0)


def weighted_set(text):
    """Parses NAME or NAME:WEIGHT; returns the name and the weight."""
    name, colon, weight = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return text, 1.0
    return name, number(1e-9)(weight)
