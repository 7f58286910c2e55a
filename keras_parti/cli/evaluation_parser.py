"""The arguments of `keras-parti evaluate`."""

from pathlib import Path

from keras_parti.cli.options import (
    DATA,
    add_command,
    add_tokenizer,
    folder,
    integer,
    number,
    option,
    required,
)


def add_evaluate(commands):
    """Adds `evaluate` and its kinds."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a tokenizer, or a model's text control",
        description="Measures a trained model and writes results.json, table.md and "
        "strips of pictures.",
    )
    kinds = evaluate.add_subparsers(required=True, metavar="KIND")

    command = add_command(
        kinds,
        "reconstruction",
        "measure:reconstruction",
        "PSNR and codebook usage of a tokenizer",
        "Encodes and decodes the pictures of a split, and compares, beside a thumbnail "
        "enlarged and all white.",
        "keras-parti evaluate reconstruction --tokenizer runs/tokenizer "
        "--data emoji_captions/small --out results/reconstruction",
    )
    add_tokenizer(command)
    required(command, "--data", "NAME", DATA)
    option(command, "--split", "SPLIT", "which pictures", str, "validation")
    required(command, "--out", "DIR", "where to write", Path)

    command = add_command(
        kinds,
        "retrieval",
        "measure:retrieval",
        "whether pictures show what their prompts say",
        "Draws pictures of captions and looks for each among all pictures of the set: "
        "right is a picture of the same name, style and tone. Takes some seconds for "
        "each prompt and guidance scale; goes on where it was interrupted.",
        "keras-parti evaluate retrieval --model saved_models/emoji "
        "--data emoji_captions/small --out results/retrieval",
    )
    required(command, "--model", "DIR", "an exported model", folder)
    required(command, "--data", "NAME", DATA)
    required(command, "--out", "DIR", "where to write", Path)
    option(command, "--num-samples", "N", "pictures drawn for a prompt", integer(1), 16)
    command.add_argument(
        "--guidance-scale",
        metavar="S",
        type=number(0, 30),
        nargs="+",
        default=[1.5, 1.0, 3.0],
        help="scales to compare, in [0, 30]; the first is that of the main figures "
        "(default 1.5 1.0 3.0)",
    )
    option(command, "--count", "N", "prompts of each set at most", integer(1), 100)
    command.add_argument(
        "--features",
        nargs="+",
        metavar="NAME",
        choices=["joined", "image", "pixels"],
        default=["joined", "image", "pixels"],
        help="how pictures are compared: joined, image, pixels; all but pixels need "
        "the extra `evaluation` (default joined image pixels)",
    )
    option(command, "--seed", "N", "seed of prompts and pictures", integer(), 0)
