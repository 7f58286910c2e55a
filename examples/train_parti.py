"""Trains a Parti: vocabulary, token cache, training, a first picture.

    python examples/train_parti.py --quick
    python examples/train_parti.py --tokenizer runs/tokenizer --workdir runs/parti

In full after examples/train_tokenizer.py; with `--quick` the tokenizer is untrained.

Cost: 45 minutes on two cores, 0.85 s a step.
Measured: 1.84 nats an id of its pictures after 3,000 steps, of others 2.61 at best; of
four red apples one is one, in patches. `saved_models/emoji` has learned 17,000 steps.

The same as commands: `keras-parti train vocab`, `keras-parti encode`, `keras-parti
train parti`.
"""

import argparse

import keras

from keras_parti.cli.options import add_run, run_options
from keras_parti.evaluation import grid
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.text import Vocabulary
from keras_parti.training.parti import train_parti
from keras_parti.training.preparation import encode_set, train_set_vocabulary
from keras_parti.training.strategies import scope
from keras_parti.training.workdir import model_dir


def main(argv=None):
    """Runs the example; returns the score of the first picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--tokenizer", default="runs/tokenizer", help="its folder")
    parser.add_argument("--preset", default="parti_emoji", help="size of the model")
    add_run(parser, 3000, 16, 1e-3, 150, workdir="runs/parti")
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    if args.quick:
        import quick

        quick.shorten(args)
        args.data, args.tokenizer = quick.picture_set(), quick.tokenizer()
        args.preset = "parti_tiny"

    workdir = args.workdir
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
            **run_options(args),
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
