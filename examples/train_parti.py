"""Trains a Parti: vocabulary, token cache, training, a first picture.

Quickly, with a tiny untrained tokenizer and the pictures of the tests, in 30 s on two
cores:

    python examples/train_parti.py --quick

In full, after examples/train_tokenizer.py; the cost and the result are those in the
card of `saved_models/emoji`:

    python examples/train_parti.py --tokenizer runs/tokenizer --workdir runs/parti

Interrupted, the same command goes on. The same as commands: `keras-parti train vocab`,
`keras-parti encode`, `keras-parti train parti`.
"""

import argparse
import os
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.evaluation import grid
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.text import Vocabulary
from keras_parti.training.parti import train_parti
from keras_parti.training.preparation import encode_set, train_set_vocabulary
from keras_parti.training.strategies import STRATEGIES, scope
from keras_parti.training.workdir import model_dir

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"


def fixture_set(folder):
    """Prepares the pictures of the tests; returns the folder of the prepared set."""
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config="small", data_dir=folder)
    builder.download_and_prepare()
    return str(builder.data_dir)


def main(argv=None):
    """Runs the example; returns the score of the first picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--tokenizer", default="runs/tokenizer", help="its folder")
    parser.add_argument("--preset", default="parti_emoji", help="size of the model")
    parser.add_argument("--workdir", default="runs/parti", help="folder of the run")
    parser.add_argument("--steps", type=int, default=3000, help="batches")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, help="train on all these devices at once"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    if args.quick:
        args.workdir, args.tokenizer = "runs/quick/parti", "runs/quick/untrained"
        args.data = fixture_set("runs/quick/data")
        args.preset, args.steps, args.batch_size = "parti_tiny", 40, 8
        keras.utils.set_random_seed(args.seed)
        ViTVQGAN.from_preset("vit_vqgan_tiny").save_dir(args.tokenizer)

    keras.utils.set_random_seed(args.seed)
    workdir = Path(args.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    config = Parti.preset_config(args.preset)
    path = workdir / "vocabulary.model"
    train_set_vocabulary(args.data, path, config.text_vocab_size)
    vocabulary = Vocabulary.from_file(path, config.text_length)
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    encode_set(tokenizer, args.data, workdir / "tokens")

    with scope(args.strategy):  # a batch is that of all devices together
        model = Parti(config)
        train_parti(
            model,
            workdir / "tokens",
            vocabulary,
            workdir,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.steps // 20,
            steps_per_epoch=min(100, args.steps // 2),
            seed=args.seed,
            verbose=2,
        )

    chain = TextToImage(tokenizer, model, vocabulary)
    chain.save(workdir / "chain")
    drawn = chain.generate(["red apple in google style"], num_samples=4, keep=4)
    grid(drawn["images"][0]).save(workdir / "apples.png")
    print(f"Red apples: {workdir}/apples.png.")
    print(f"Next: examples/export_and_call.py --chain {workdir}/chain")
    return float(drawn["score"][0, 0])


if __name__ == "__main__":
    main()
