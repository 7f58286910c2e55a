"""The arguments of what concerns upsamplers: `train`, `evaluate` and `upscale`."""

from keras_parti import presets
from keras_parti.cli.options import (
    DATA,
    add_command,
    add_lpips,
    add_preset,
    add_run,
    file,
    folder,
    integer,
    new_folder,
    number,
    option,
    required,
)
from keras_parti.cli.tokenizer_parser import add_networks, add_updates


def add_upsampler_training(parts):
    """Adds `train upsampler`."""
    command = add_command(
        parts,
        "upsampler",
        "train:upsampler",
        "a WDSR, which enlarges pictures",
        "Trains a WDSR on random squares of the train split. With --tokenizer, as "
        "Parti: on that tokenizer's reconstructions of the squares made small. "
        "Without, as WDSR was published: on clean small pictures. "
        "`tensorboard --logdir DIR/logs` shows nearest | bicubic | WDSR | original.",
        "keras-parti train upsampler --data photographs/crops --preset "
        "wdsr_photographs --workdir runs/upsampler\n"
        "keras-parti train upsampler --data photographs/crops --preset "
        "wdsr_photographs --tokenizer runs/tokenizer --perceptual package "
        "--discriminator discriminator_emoji --initial runs/upsampler "
        "--workdir runs/sharp",
    )
    required(command, "--data", "NAME", DATA)
    add_preset(command, presets.WDSR)
    _add_frozen_tokenizer(command)
    option(
        command,
        "--initial",
        "DIR",
        "start from the weights of this WDSR, such as one of ℓ2 alone, to sharpen it",
        folder,
    )
    option(
        command,
        "--image-size",
        "N",
        "side of the squares in pixels (default 48 times the scale; with --tokenizer "
        "its size times the scale)",
        integer(1),
    )
    add_run(command, steps=5000, batch_size=16, learning_rate=1e-3, warmup_steps=100)
    terms = command.add_argument_group("terms of the loss, and their weights")
    option(
        terms,
        "--l1-weight",
        "W",
        "of the mean absolute error (default 0 with --tokenizer, else 1)",
        number(0),
    )
    option(
        terms,
        "--l2-weight",
        "W",
        "of the ℓ2 loss (default 1 with --tokenizer, else 0)",
        number(0),
    )
    add_networks(terms)
    add_updates(command)


def add_upscaling_evaluation(kinds):
    """Adds `evaluate upscaling`."""
    command = add_command(
        kinds,
        "upscaling",
        "measure:upscaling",
        "PSNR and SSIM of upsamplers, beside bicubic",
        "Makes the pictures of a split small, as in training, enlarges them again, and "
        "compares, beside nearest and bicubic interpolation. Writes a strip nearest, "
        "bicubic, each WDSR, original.",
        "keras-parti evaluate upscaling --upsampler runs/upsampler "
        "--data photographs/crops --out results/upscaling\n"
        "keras-parti evaluate upscaling --upsampler runs/upsampler runs/sharp "
        "--perceptual package \\\n  --data photographs/crops --out results/sharp",
    )
    command.add_argument(
        "--upsampler",
        metavar="DIR",
        type=folder,
        required=True,
        nargs="+",
        help="workdirs or model folders of WDSRs of one scale, one or several",
    )
    required(command, "--data", "NAME", DATA)
    option(command, "--split", "SPLIT", "which pictures", str, "validation")
    option(
        command,
        "--image-size",
        "N",
        "side that pictures are resized to (default 256; with --tokenizer its size "
        "times the scale)",
        integer(11),
    )
    _add_frozen_tokenizer(command)
    add_lpips(command)
    required(command, "--out", "DIR", "where to write", new_folder)


def add_upscale(commands):
    """Adds `upscale`."""
    command = add_command(
        commands,
        "upscale",
        "upscale:upscale",
        "enlarge pictures of any size",
        "Enlarges picture files with a trained WDSR, a tile at a time, and writes them "
        "as PNG under the same name into a folder.",
        "keras-parti upscale photo.jpg --upsampler runs/upsampler --out large",
    )
    command.add_argument(
        "pictures", nargs="+", metavar="FILE", type=file, help="a picture"
    )
    _add_upsampler(command)
    required(command, "--out", "DIR", "where to write", new_folder)
    option(
        command,
        "--tile",
        "N",
        "side in pixels of what is enlarged at a time: smaller takes less memory and "
        "more time",
        integer(1),
        256,
    )


def _add_upsampler(command):
    words = "workdir or model folder of a WDSR"
    required(command, "--upsampler", "DIR", words, folder)


def _add_frozen_tokenizer(command):
    option(
        command,
        "--tokenizer",
        "DIR",
        "enlarge the reconstructions of this ViT-VQGAN (default: clean pictures)",
        folder,
    )
