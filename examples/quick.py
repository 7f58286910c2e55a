"""What the examples take with `--quick`: the tests' pictures, tiny untrained models.

An example that is copied elsewhere needs this file for `--quick` alone.
"""

import os
from pathlib import Path

from keras_parti import data
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.text import Vocabulary, train_vocabulary

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"
PROMPTS = [
    f"{colour} {thing} in {style} style"
    for colour in ("red", "green")
    for thing in ("apple", "pear")
    for style in ("google", "twitter", "fluent")
]


def shorten(args, steps=40):
    """Makes of the options of a training those of two short epochs in runs/quick."""
    args.steps, args.steps_per_epoch, args.warmup_steps = steps, steps // 2, 2
    args.batch_size = 8
    args.workdir = Path("runs/quick") / args.workdir.name


def picture_set(config="small"):
    """Prepares the pictures of the tests; returns the folder of the prepared set."""
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config=config, data_dir="runs/quick/data")
    builder.download_and_prepare()
    return str(builder.data_dir)


def tokenizer(folder="runs/quick/untrained"):
    """Writes a tokenizer; returns its folder."""
    ViTVQGAN.from_preset("vit_vqgan_tiny").save_dir(folder)
    return folder


def chain(folder):
    """Writes a chain; returns its folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parti = Parti.from_preset("parti_tiny")
    size = parti.config.text_vocab_size
    train_vocabulary(PROMPTS, folder / "vocabulary.model", size=size)
    vocabulary = Vocabulary.from_file(
        folder / "vocabulary.model", parti.config.text_length
    )
    parts = ViTVQGAN.from_preset("vit_vqgan_tiny"), parti, vocabulary
    TextToImage(*parts).save(folder)
    return folder
