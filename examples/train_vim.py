"""Trains a VIM that draws emoji of a style, and lets a classifier choose among them.

    python examples/train_vim.py --quick
    python examples/train_vim.py --tokenizer runs/tokenizer --workdir runs/vim

In full after examples/train_tokenizer.py; with `--quick` the tokenizer is untrained.
`--label category` draws by category instead.

Cost: 25 minutes on two cores.
Measured: held-out loss 2.31 nats an id; pictures in colours of emoji, of no certain
shape; log-probability of the right style −0.88, of the best quarter −0.21, by chance
−1.10. These are a classifier's, means over the pictures; of the best half −0.40.

The same as commands: `keras-parti encode`, `keras-parti train vim`.
"""

import argparse
import dataclasses
import math

import keras
import numpy as np

from keras_parti.cli.options import add_run, run_options
from keras_parti.evaluation import draw_accepted, grid
from keras_parti.evaluation.linear_probe import read_labelled
from keras_parti.models import VIM, ClassToImage, ViTVQGAN
from keras_parti.training.preparation import encode_set
from keras_parti.training.strategies import scope
from keras_parti.training.vim import read_classes, train_vim
from keras_parti.training.workdir import model_dir


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
    parser.add_argument("--samples", type=int, default=16, help="pictures a class")
    add_run(parser, 1000, 16, 1e-3, 100, workdir="runs/vim")
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    if args.quick:
        import quick

        quick.shorten(args)
        args.data, args.tokenizer = quick.picture_set("full"), quick.tokenizer()
        args.preset, args.samples = "vim_tiny", 4

    workdir = args.workdir
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
            **run_options(args),
        )

    chain = ClassToImage(tokenizer, vim)
    chain.save(workdir / "chain")
    pictures = read_labelled(tokenizer, args.data, "train", args.label)
    classifier = train_classifier(pictures, classes, epochs=2 if args.quick else 100)
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
