"""Trains a WDSR that enlarges pictures, and measures it beside bicubic interpolation.

Quickly, a tiny one on the pictures of the tests, in half a minute on two cores:

    python examples/train_upsampler.py --quick

In full, on 32 photographs, in about six minutes on one core (2,000 steps of 0.18 s), to
2.6 dB above bicubic, 42.67 to 40.04 dB of PSNR, on 26 crops spread evenly over the 253
of the 11 photographs that it never saw (the rate of that run fell along the cosine of
3,000 steps up to step 1,600, then along that of 2,000):

    python examples/train_upsampler.py

As in Parti, on what a tokenizer makes of the small pictures, for looks and not for
decibels:

    python examples/train_upsampler.py --tokenizer runs/tokenizer --perceptual package \
        --discriminator discriminator_emoji --workdir runs/parti_upsampler

Interrupted, the same command goes on. `tensorboard --logdir runs` shows the terms of
the loss and nearest | bicubic | WDSR | original. The same as commands: `keras-parti
train upsampler`, `keras-parti evaluate upscaling`, `keras-parti upscale`.
"""

import argparse
import os
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.evaluation import evaluate_upscaling
from keras_parti.evaluation.pictures import load_images
from keras_parti.models import WDSR, ViTVQGAN
from keras_parti.training.strategies import STRATEGIES, scope
from keras_parti.training.tokenizer import Losses
from keras_parti.training.upsampler import Upsampling, train_upsampler
from keras_parti.training.workdir import model_dir

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"


def fixture_set(folder):
    """Prepares the pictures of the tests; returns the folder of the prepared set."""
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config="small", data_dir=folder)
    builder.download_and_prepare()
    return str(builder.data_dir)


def main(argv=None):
    """Runs the example; returns the mean PSNR above bicubic's in dB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="photographs/crops", help="picture set")
    parser.add_argument("--preset", default="wdsr_photographs", help="size")
    parser.add_argument("--tokenizer", help="enlarge this one's reconstructions")
    parser.add_argument(
        "--perceptual", help="weights of the VGG16, if there is to be one"
    )
    parser.add_argument("--discriminator", help="preset, if there is to be one")
    parser.add_argument("--workdir", default="runs/upsampler", help="the run's folder")
    parser.add_argument("--image-size", type=int, default=64, help="of squares, pixels")
    parser.add_argument("--steps", type=int, default=2000, help="batches")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, help="train on all these devices at once"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    measured_size = 256
    if args.quick:
        args.workdir, args.preset = "runs/quick/upsampler", "wdsr_tiny"
        args.data = fixture_set("runs/quick/data")
        args.image_size, args.steps, measured_size = 32, 20, 64
        args.learning_rate = 1e-4  # so few steps at 1e-3 end below bicubic

    with scope(args.strategy):  # a batch is that of all devices together
        model, tokenizer, terms = WDSR.from_preset(args.preset), None, None
        if args.tokenizer:
            tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
            args.image_size = measured_size = model.scale * tokenizer.config.image_size
        if args.perceptual or args.discriminator:
            terms = Losses(perceptual=args.perceptual, discriminator=args.discriminator)
        train_upsampler(
            model,
            args.data,
            args.workdir,
            tokenizer,
            args.image_size,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.steps // 30,
            terms=terms,
            steps_per_epoch=min(100, args.steps // 2),
            seed=args.seed,
            verbose=2,
        )

    pictures = load_images(args.data, "validation", measured_size)
    degrade = Upsampling(model, measured_size, tokenizer).degrade
    out = Path(args.workdir) / "upscaling"
    results = evaluate_upscaling(
        model.fold().upscale, degrade, pictures, model.scale, out
    )
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"The pictures are in {out}/strip.png.")
    return results["psnr"]["WDSR"] - results["psnr"]["bicubic"]


if __name__ == "__main__":
    main()
