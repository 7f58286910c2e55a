"""Trains a CoCa, measures what it finds, and lets it choose a Parti's pictures.

Quickly, with a tiny model and the pictures of the tests, in 30 s on two cores:

    python examples/train_coca.py --quick

In full, after examples/train_parti.py, whose vocabulary it reads; 1,000 steps take some
20 minutes on one core:

    python examples/train_coca.py --parti runs/parti --workdir runs/coca

Measured after 500 steps of a run of 700 on emoji_captions/full and small, half of each
(`keras-parti train coca`): of 410 pictures of names it never saw, 17 % find their
caption first, by chance 0.2 %.

Interrupted, the same command goes on. The same as commands: `keras-parti train coca`,
`keras-parti evaluate matching`, `keras-parti export --coca`.
"""

import argparse
import os
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.evaluation.matching import evaluate_matching
from keras_parti.evaluation.pictures import Pictures
from keras_parti.models import CoCa, Parti, TextToImage, ViTVQGAN
from keras_parti.text import Vocabulary
from keras_parti.training.coca import train_coca
from keras_parti.training.preparation import train_set_vocabulary
from keras_parti.training.strategies import STRATEGIES, scope

FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "emoji"


def quick_chain(folder, name):
    """Writes an untrained chain as examples/train_parti.py leaves a trained one."""
    folder.mkdir(parents=True, exist_ok=True)
    parti = Parti.from_preset("parti_tiny")
    train_set_vocabulary(name, folder / "v.model", parti.config.text_vocab_size)
    vocabulary = Vocabulary.from_file(folder / "v.model", parti.config.text_length)
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    TextToImage(tokenizer, parti, vocabulary).save(folder / "chain")


def main(argv=None):
    """Runs the example; returns recall at 1 of held-out pictures for their captions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--parti", default="runs/parti", help="run with chain/ in it")
    parser.add_argument("--preset", default="coca_emoji", help="size of the model")
    parser.add_argument("--workdir", default="runs/coca", help="folder of the run")
    parser.add_argument("--steps", type=int, default=1000, help="batches")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3, help="its peak")
    parser.add_argument(
        "--strategy", choices=STRATEGIES, help="train on all these devices at once"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    if args.quick:
        os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
        builder = data.EmojiCaptions(config="small", data_dir="runs/quick/data")
        builder.download_and_prepare()
        args.data, args.parti = str(builder.data_dir), "runs/quick/parti"
        args.workdir, args.preset = "runs/quick/coca", "coca_tiny"
        args.steps, args.batch_size = 40, 8
        quick_chain(Path(args.parti), args.data)

    workdir = Path(args.workdir)
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
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_steps=args.steps // 20,
            tokenizer=chain.tokenizer,
            steps_per_epoch=min(100, args.steps // 2),
            seed=args.seed,
            verbose=2,
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
