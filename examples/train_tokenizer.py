"""Trains a ViT-VQGAN on captioned emoji and measures its reconstructions.

Quickly, a tiny one on 12×12 pixels of the pictures of the tests, in 25 s on two cores:

    python examples/train_tokenizer.py --quick

In full, on about 850 pictures that the npm client fetches; the cost and the result are
those in the card of `saved_models/emoji`:

    python examples/train_tokenizer.py --workdir runs/tokenizer

Interrupted, the same command goes on. `tensorboard --logdir runs` shows the losses and
reconstructions. The same as a command: `keras-parti train tokenizer`.
"""

import argparse
import os
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.evaluation import Pictures, evaluate_reconstruction
from keras_parti.models import ViTVQGAN
from keras_parti.training.tokenizer import train_tokenizer

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"


def fixture_set(folder):
    """Prepares the pictures of the tests; returns the folder of the prepared set."""
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config="small", data_dir=folder)
    builder.download_and_prepare()
    return str(builder.data_dir)


def main(argv=None):
    """Runs the example; returns the mean PSNR in dB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--preset", default="vit_vqgan_emoji", help="size of the model")
    parser.add_argument("--workdir", default="runs/tokenizer", help="folder of the run")
    parser.add_argument("--steps", type=int, default=2000, help="batches")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    if args.quick:
        args.workdir = "runs/quick/tokenizer"
        args.data = fixture_set("runs/quick/data")
        args.preset, args.steps, args.batch_size = "vit_vqgan_tiny", 40, 8

    keras.utils.set_random_seed(args.seed)
    model = ViTVQGAN.from_preset(args.preset)
    train_tokenizer(
        model,
        args.data,
        args.workdir,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=args.steps // 20,
        steps_per_epoch=min(100, args.steps // 2),
        seed=args.seed,
        verbose=2,
    )

    size = model.config.image_size
    pictures = data.load(args.data, "validation", image_size=size)
    out = Path(args.workdir) / "reconstruction"
    results = evaluate_reconstruction(model, Pictures.from_examples(pictures), out)
    print(
        f"{results['psnr']['tokenizer']:.1f} dB, {results['usage']:.0%} of the codes."
    )
    print(f"Before and after: {out}/strip.png. Next: examples/train_parti.py")
    return results["psnr"]["tokenizer"]


if __name__ == "__main__":
    main()
