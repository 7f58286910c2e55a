"""Trains a VIM that draws emoji of a style, and lets a classifier choose among them.

Quickly, with a tiny untrained tokenizer and the pictures of the tests, in 30 s on two
cores:

    python examples/train_vim.py --quick

In full, after examples/train_tokenizer.py, in about half an hour on two cores:

    python examples/train_vim.py --tokenizer runs/tokenizer --workdir runs/vim

Interrupted, the same command goes on. `--label category` draws by category instead. The
same as commands: `keras-parti encode`, `keras-parti train vim`.
"""

import argparse
import dataclasses
import math
import os
from pathlib import Path

import keras
import numpy as np

from keras_parti import data
from keras_parti.evaluation import draw_accepted, grid
from keras_parti.evaluation.linear_probe import read_labelled
from keras_parti.models import VIM, ClassToImage, ViTVQGAN
from keras_parti.training.preparation import encode_set
from keras_parti.training.strategies import STRATEGIES, scope
from keras_parti.training.vim import read_classes, train_vim
from keras_parti.training.workdir import model_dir

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"


def fixture_set(folder):
    """Prepares the pictures of the tests; returns the folder of the prepared set."""
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config="full", data_dir=folder)
    builder.download_and_prepare()
    return str(builder.data_dir)


def train_classifier(pictures, classes, epochs):
    """Trains a small network to tell the classes of true pictures."""
    model = keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(classes)),
        ]
    )
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    labels = np.searchsorted(classes, pictures["labels"])
    images = pictures["images"].astype("float32") / 255.0
    model.fit(images, labels, epochs=epochs, verbose=2)
    return model


def main(argv=None):
    """Runs the example; returns the mean scores by acceptance rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--label", default="style", help="what tells the class")
    parser.add_argument("--tokenizer", default="runs/tokenizer", help="its folder")
    parser.add_argument("--preset", default="vim_emoji", help="size of the model")
    parser.add_argument("--workdir", default="runs/vim", help="folder of the run")
    parser.add_argument("--steps", type=int, default=2000, help="batches")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument("--samples", type=int, default=16, help="pictures a class")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, help="train on all these devices at once"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    if args.quick:
        args.workdir, args.tokenizer = "runs/quick/vim", "runs/quick/untrained"
        args.data = fixture_set("runs/quick/data")
        args.preset, args.steps, args.batch_size = "vim_tiny", 40, 8
        args.samples = 4
        keras.utils.set_random_seed(args.seed)
        ViTVQGAN.from_preset("vit_vqgan_tiny").save_dir(args.tokenizer)

    keras.utils.set_random_seed(args.seed)
    workdir = Path(args.workdir)
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    encode_set(tokenizer, args.data, workdir / "tokens")
    classes = read_classes(workdir / "tokens", args.label)
    with scope(args.strategy):  # a batch is that of all devices together
        vim = VIM(
            dataclasses.replace(
                VIM.preset_config(args.preset),
                num_codes=tokenizer.config.num_codes,
                num_tokens=tokenizer.config.num_tokens,
                num_classes=len(classes),
            )
        )
        train_vim(
            vim,
            workdir / "tokens",
            workdir,
            feature=args.label,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.steps // 20,
            steps_per_epoch=min(100, args.steps // 2),
            seed=args.seed,
            verbose=2,
        )

    chain = ClassToImage(tokenizer, vim)
    chain.save(workdir / "chain")
    pictures = read_labelled(tokenizer, args.data, "train", args.label)
    classifier = train_classifier(pictures, classes, epochs=2 if args.quick else 10)
    # All that are drawn, the best of each class first: what a rate accepts is ahead.
    found = draw_accepted(
        chain.draw, classifier, range(len(classes)), args.samples, 1.0, args.seed
    )
    images = found["images"]
    page = grid(images.reshape(-1, *images.shape[2:]), columns=images.shape[1])
    page.save(workdir / "by_class.png")
    scores = {}
    for rate in (1.0, 0.5, 0.25):
        kept = found["score"][:, : math.ceil(rate * args.samples)]
        scores[rate] = float(kept.mean())
        print(f"acceptance rate {rate}: mean log-probability {scores[rate]:.3f}")
    print(f"{workdir}/by_class.png: {', '.join(classes)}, the best ahead.")
    return scores


if __name__ == "__main__":
    main()
