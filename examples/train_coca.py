"""Trains a CoCa, measures what it finds, and lets it choose a Parti's pictures.

    python examples/train_coca.py --quick
    python examples/train_coca.py --parti runs/parti --workdir runs/coca

In full after examples/train_parti.py, whose vocabulary it reads; with `--quick` the
Parti is untrained.

Cost: 20 minutes on one core.
Measured: 17 % of 410 pictures of names it never saw find their caption first, by chance
0.2 %, after 500 steps of a run of 700 on emoji_captions/full and small, half of each
(`keras-parti train coca`).

The same as commands: `keras-parti train coca`, `keras-parti evaluate matching`,
`keras-parti export --coca`.
"""

import argparse
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.cli.options import add_run, run_options
from keras_parti.evaluation.matching import evaluate_matching
from keras_parti.evaluation.pictures import Pictures
from keras_parti.models import CoCa, TextToImage
from keras_parti.text import Vocabulary
from keras_parti.training.coca import train_coca
from keras_parti.training.strategies import scope


def main(argv=None):
    """Runs the example; returns recall at 1 of held-out pictures for their captions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--parti", default="runs/parti", help="run with chain/ in it")
    parser.add_argument("--preset", default="coca_emoji", help="size of the model")
    add_run(parser, 1000, 64, 1.2e-3, 50, workdir="runs/coca")
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    if args.quick:
        import quick

        quick.shorten(args)
        args.data, args.preset = quick.picture_set(), "coca_tiny"
        args.parti = quick.chain("runs/quick/untrained_parti/chain").parent

    workdir = args.workdir
    chain = TextToImage.load(Path(args.parti) / "chain")
    with scope(args.strategy):  # a batch is that of all devices together
        model = CoCa.from_preset(args.preset)
        length = model.config.text_length
        vocabulary = Vocabulary(chain.vocabulary.model_bytes, length)
        train_coca(
            model,
            args.data,
            vocabulary,
            workdir,
            **run_options(args),
            tokenizer=chain.tokenizer,
        )

    size = model.config.image_size
    held_out = data.load(args.data, "validation", image_size=size)
    splits = {"validation": Pictures.from_examples(held_out)}
    results = evaluate_matching(model, vocabulary, splits, workdir / "matching")
    print((workdir / "matching" / "table.md").read_text())

    parts = (chain.tokenizer, chain.parti, chain.vocabulary)
    chain = TextToImage(*parts, reranker=model.reranker())
    chain.save(workdir / "chain")
    drawn = chain.generate(["red apple in google style"], num_samples=8, keep=2)
    print(f"Cosines of the two best of 8 red apples: {drawn['score'][0]}.")
    print(f"Next: examples/export_and_call.py --chain {workdir}/chain")
    return results["recall"]["validation"]["image_to_text@1"]


if __name__ == "__main__":
    main()
