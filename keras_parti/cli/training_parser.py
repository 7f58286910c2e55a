"""The arguments of `keras-parti train`, a subcommand for each part of a model."""

from pathlib import Path

from keras_parti import presets
from keras_parti.cli.coca_parser import add_coca_training
from keras_parti.cli.options import (
    DATA,
    add_accumulation,
    add_average,
    add_command,
    add_dtype,
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
from keras_parti.cli.plan_parser import add_mesh
from keras_parti.cli.tokenizer_parser import (
    add_detokenizer_training,
    add_tokenizer_training,
)
from keras_parti.cli.upsampler_parser import add_upsampler_training


def add_train(commands):
    """Adds `train` and its parts."""
    train = commands.add_parser(
        "train",
        help="train a tokenizer, a Parti, a VIM, a CoCa, or what they need",
        description="Trains one part of a model. A run lives in its workdir:\n"
        "checkpoints/, logs/ for TensorBoard, config.json, and model/ to use it.\n"
        "The same command goes on where a run was interrupted.",
    )
    parts = train.add_subparsers(required=True, metavar="PART")

    command = add_command(
        parts,
        "vocab",
        "train:vocab",
        "the SentencePiece vocabulary of the captions",
        "Trains SentencePiece on the captions and synonyms of the train split and "
        "writes DIR/vocabulary.model.",
        "keras-parti train vocab --data emoji_captions/small --workdir runs/vocab",
    )
    required(command, "--data", "NAME", DATA)
    required(command, "--workdir", "DIR", "where to write", new_folder)
    option(command, "--size", "N", "ids at most", integer(260), 2000)

    add_tokenizer_training(parts)
    add_detokenizer_training(parts)
    add_upsampler_training(parts)

    command = add_command(
        parts,
        "vim",
        "train:vim",
        "a VIM, on tokens and where wanted their classes",
        "Trains a VIM on a token cache of `keras-parti encode`. The cache decides the "
        "number of codes, of ids a picture and of classes, whatever the preset says.",
        "keras-parti train vim --data runs/tokens --preset vim_emoji --label style "
        "--workdir runs/vim",
    )
    required(
        command, "--data", "DIR", "a token cache, from `keras-parti encode`", folder
    )
    add_preset(command, presets.VIM)
    command.add_argument(
        "--label",
        choices=["name", "style", "tone", "category"],
        help="what tells a picture's class; left out, pictures have none",
    )
    option(
        command,
        "--class-dropout-rate",
        "R",
        "share of pictures whose class is hidden, so that classes can be guided; the "
        "paper hides none",
        number(0, 0.99),
        0.0,
    )
    add_dtype(command)
    add_run(command, steps=3000, batch_size=32, learning_rate=4.5e-4, warmup_steps=100)

    command = add_command(
        parts,
        "text-encoder",
        "train:text_encoder",
        "the text encoder of a Parti, before it",
        "Trains a Parti's text encoder to tell hidden pieces of captions, and which "
        "picture belongs to which, on the token cache that the Parti is trained on.",
        "keras-parti train text-encoder --data runs/tokens --vocab "
        "runs/vocab/vocabulary.model --preset parti_emoji --workdir runs/text_encoder",
    )
    _add_captioned(command)
    option(
        command,
        "--mask-rate",
        "R",
        "share of the pieces that are hidden",
        number(0, 0.99),
        0.15,
    )
    option(
        command,
        "--contrastive-weight",
        "W",
        "weight of telling pictures apart; 0 leaves it out",
        number(0),
        1.0,
    )
    add_run(command, steps=3000, batch_size=64, learning_rate=1e-3, warmup_steps=200)

    command = add_command(
        parts,
        "parti",
        "train:parti",
        "a Parti, on tokens and captions",
        "Trains a Parti on token caches of `keras-parti encode`. They decide the "
        "number of codes and of ids a picture, whatever the preset says.",
        "keras-parti train parti --data runs/tokens --vocab "
        "runs/vocab/vocabulary.model --preset parti_emoji --workdir runs/parti\n"
        "keras-parti train parti --data runs/captioned:0.7 --data runs/labelled:0.3 "
        "--vocab runs/vocab/vocabulary.model --preset parti_emoji --workdir runs/mix",
    )
    _add_captioned(command)
    option(
        command,
        "--tokenizer",
        "DIR",
        "check that the caches are of this tokenizer",
        folder,
    )
    option(
        command,
        "--initial",
        "DIR",
        "start from the weights of this Parti, to finetune it",
        folder,
    )
    option(
        command,
        "--text-encoder",
        "DIR",
        "start from this text encoder, of `keras-parti train text-encoder`",
        folder,
    )
    command.add_argument(
        "--optimizer",
        choices=["adamw", "adafactor"],
        default="adamw",
        help="adafactor is the paper's: 1 byte of state a parameter, not 8 (default "
        "adamw)",
    )
    command.add_argument(
        "--schedule",
        choices=["cosine", "exponential"],
        default="cosine",
        help="how the rate falls; exponential is the paper's (default cosine)",
    )
    add_average(command)
    add_accumulation(command)
    command.add_argument(
        "--rematerialise",
        action="store_true",
        help="compute activations again in the backward pass: less memory, more time",
    )
    add_mesh(command)
    command.add_argument(
        "--show",
        metavar="PROMPT",
        nargs="+",
        help="with --tokenizer: draw these prompts after each checkpoint, with one "
        "seed, at three guidance scales, for TensorBoard",
    )
    option(
        command,
        "--peak-tflops",
        "T",
        "10^12 operations a second of one device, for the model FLOP utilisation on "
        "TensorBoard; left out, what a matrix product reaches",
        number(1e-6),
    )
    option(
        command,
        "--label-rate",
        "R",
        "how often the text is a picture's name instead of a caption",
        number(0, 1),
        0.0,
    )
    add_run(command, steps=3000, batch_size=32, learning_rate=1e-3, warmup_steps=200)

    add_coca_training(parts)


def _add_captioned(command):
    """Adds what trainings on token caches with captions have in common."""
    command.add_argument(
        "--data",
        metavar="DIR[:WEIGHT]",
        type=weighted_folder,
        action="append",
        required=True,
        help="a token cache, from `keras-parti encode`; several are mixed by weight",
    )
    add_vocab(command)
    add_preset(command, presets.PARTI)
    add_dtype(command)


def weighted_folder(text):
    """Parses DIR or DIR:WEIGHT; returns the path and the weight."""
    path, colon, weight = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return folder(text), 1.0
    return folder(path), number(1e-9)(weight)
