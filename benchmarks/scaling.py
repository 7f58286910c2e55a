r"""Trains Parti in three sizes, an octave apart, and measures what size brings.

    python benchmarks/scaling.py --digits    # needs nothing before; half an hour
    nohup python benchmarks/scaling.py --tokens runs/tokens --coca runs/coca \
        > runs/scaling.log &                 # hours on two cores
    python benchmarks/scaling.py --quick     # tiny, to see it run

Each size is trained alike from several seeds on one token cache. Then captions are
drawn, several times each with and without guidance, and the drawn picture is looked for
among the pictures of `--gallery`: is the nearest of the right name and style? Best of
16 is by `--coca`, as in the paper, or without one by the model's own likelihood, which
prefers pictures that it knows to those asked for. The small set's analogue of figure 9
of the paper (the loss falls with size) and of what section 2.4 says of guidance and
reranking.

Writes `table.md`, `results.json`, `loss.png`, `retrieval.png` and `best.png` to
`--out`. Intervals are 95 %: 4,000 bootstrap samples of seeds and, within them, of
prompts; a difference is taken prompt by prompt. Interrupted at any moment, the same
command goes on; `--only large-0` does one run, so that several machines can share the
work.
"""

import argparse
import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from parts.curves import draw_curves
from parts.digit_set import DATA, TEXT_LENGTH, digit_set
from parts.toy_set import toy_set

from keras_parti.data.arrays import read_npz, write_npz
from keras_parti.evaluation.control import MEASURES as WORDS
from keras_parti.evaluation.control import hits
from keras_parti.evaluation.gallery import strip
from keras_parti.evaluation.nearest import Index
from keras_parti.evaluation.pictures import Pictures, load_splits
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.evaluation.retrieval import choose_queries
from keras_parti.evaluation.samples import best_of_weights, draw_samples
from keras_parti.models import CoCa, Parti, TextToImage, ViTVQGAN
from keras_parti.text import Vocabulary
from keras_parti.training.parti import train_parti
from keras_parti.training.preparation import caption_fields
from keras_parti.training.workdir import model_dir

SIZES = {  # 1.8, 3.9 and 7.4 million parameters
    "small": {"dim": 112, "heads": 2, "mlp_dim": 448},
    "medium": {"dim": 176, "heads": 4, "mlp_dim": 704},
    "large": {"dim": 256, "heads": 4, "mlp_dim": 1024},
}
DIGIT_SIZES = {  # 0.4, 0.8 and 1.6 million parameters
    "small": {"dim": 64, "heads": 2, "mlp_dim": 256},
    "medium": {"dim": 92, "heads": 2, "mlp_dim": 368},
    "large": {"dim": 128, "heads": 4, "mlp_dim": 512},
}
DIGITS = {  # what `--digits` changes of the defaults
    "out": Path("runs/scaling_digits"),
    "data": DATA,
    "split": "train",
    "gallery": ["validation"],
    "steps": 500,
    "batch_size": 64,
    "queries": 400,
    "num_samples": 64,
    "features": "pixels",
    "measure": "name@1",
}
DIGIT_SET = Path("runs/scaling_digits/set")
DIGIT_FIELDS = {
    "text_length": TEXT_LENGTH,
    "text_vocab_size": 300,
    "image_mixing_rate": 0.0,
}
TOY_SIZES = {
    "small": {"dim": 8, "heads": 2, "mlp_dim": 16},
    "large": {"dim": 16, "heads": 2, "mlp_dim": 32},
}
MEASURES = ("name@1", "name@5", "style")
COLUMNS = 10  # of `best.png`
WAYS = {  # name: (guided, best of)
    "no guidance": (False, 1),
    "guidance": (True, 1),
    "guidance, best of N": (True, None),
}


def train(args, size, seed, folder):
    """Trains a run, or what is missing of it; returns the model."""
    config = Parti.preset_config(args.preset, **args.fields)
    vocabulary = Vocabulary.from_file(args.vocab, config.text_length)
    keras.utils.set_random_seed(seed)
    fitted = caption_fields(args.tokens, config, vocabulary)
    fields = args.fields | args.sizes[size] | fitted
    model = Parti.from_preset(args.preset, **fields)
    folder.mkdir(parents=True, exist_ok=True)
    train_parti(
        model,
        args.tokens,
        vocabulary,
        folder,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=args.steps // 20,
        steps_per_epoch=args.steps_per_epoch,
        seed=seed,
        callbacks=[keras.callbacks.CSVLogger(folder / "losses.csv", append=True)],
        verbose=2,
    )
    return model, vocabulary


def measure(args, model, vocabulary, name, folder):
    """Draws and looks up; writes `hits.npz`: measure-guided to (prompts, samples)."""
    splits = load_splits(args.data)
    queries = choose_queries(splits, args.queries, seed=0)
    wanted = queries.get(args.split) or queries["train"]
    # Equal captions with equal seeds are equal pictures.
    wanted = wanted.take(np.unique(wanted.prompts, return_index=True)[1])
    gallery = Pictures.join([splits[name] for name in args.gallery or splits])
    index = Index(gallery, (args.features,))
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    coca = CoCa.load_dir(model_dir(args.coca)).reranker() if args.coca else None
    chain = TextToImage(tokenizer, model, vocabulary, coca)
    found = {}
    for guided, scale in ((0, 1.0), (1, args.guidance_scale)):
        images, _ = draw_samples(
            chain.generate,
            wanted.prompts,
            folder / "samples",
            num_samples=args.num_samples,
            guidance_scale=scale,
            seed=0,
            model_name=name,
            label=f"{name}, guidance {scale:g}",
        )
        flat = images.reshape(-1, *images.shape[2:])
        nearest = index.search(flat)[args.features]
        repeated = wanted.take(np.repeat(np.arange(len(wanted)), args.num_samples))
        for key, values in hits(nearest, gallery, repeated).items():
            shape = (len(wanted), args.num_samples)
            found[f"{key}-{guided}"] = values.reshape(shape)
    found["prompts"], found["best"] = np.array(wanted.prompts, str), images[:, 0]
    write_npz(folder / "hits.npz", found)


def by_way(args, found, measure):
    """Returns what each way reaches for each prompt: a dict of way to (prompts,)."""
    values = {}
    for way, (guided, best_of) in WAYS.items():
        weights = best_of_weights(args.num_samples, best_of or args.best_of)
        values[way] = found[f"{measure}-{int(guided)}"] @ weights
    return values


def interval(values, draws=4_000):
    """Returns mean, low and high of (seeds, prompts), resampling seeds and prompts."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        seeds = rng.integers(len(values), size=len(values))
        prompts = rng.integers(values.shape[1], size=values.shape[1])
        means.append(values[np.ix_(seeds, prompts)].mean())
    return float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5]))


def read_losses(path):
    """Returns epoch to row of a `CSVLogger`'s file; of an epoch done twice the last."""
    with open(path, newline="") as file:
        return {int(row["epoch"]): row for row in csv.DictReader(file)}


def losses(results):
    """Returns the table of losses; of those held out the range over seeds."""

    def of_seeds(values):
        return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"

    rows = [
        [
            size,
            f"{r['parameters']:,}",
            f"{r['train_loss']:.3f}",
            of_seeds(r["lowest"]),
            of_seeds(r["last"]),
        ]
        for size, r in results.items()
    ]
    # A small set is learned by heart: then the held-out loss rises again.
    header = ["size", "parameters", "loss", "held-out loss, lowest", "at the end"]
    return markdown_table(header, rows)


def retrieval(results, measure):
    """Returns the table of a measure."""
    rows = [
        [
            size,
            *(
                "{:.1f} ({:.1f}–{:.1f})".format(*100 * np.array(found))
                for found in r[measure].values()
            ),
        ]
        for size, r in results.items()
    ]
    columns = next(iter(results.values()))[measure]
    return markdown_table([WORDS[measure], *columns], rows)


def report(args, runs):
    """Writes table, results and plot of the sizes whose runs are all there."""
    results, rows_of_best = {}, {}
    for size in args.sizes:
        folders = [runs[size, seed] for seed in range(args.seeds)]
        if not all((folder / "hits.npz").exists() for folder in folders):
            continue
        rows = [read_losses(folder / "losses.csv") for folder in folders]
        curves = np.array(
            [[float(r[epoch]["val_loss"]) for epoch in sorted(r)] for r in rows]
        )
        results[size] = {
            "parameters": Parti.load_dir(folders[0] / "model").count_params(),
            "train_loss": float(np.mean([float(r[max(r)]["loss"]) for r in rows])),
            "lowest": curves.min(axis=1).tolist(),
            "last": curves[:, -1].tolist(),
            "curve": curves.mean(0).tolist(),
        }
        found = [read_npz(folder / "hits.npz") for folder in folders]
        rows_of_best[f"{size}, {results[size]['parameters'] / 1e6:.1f}M"] = found[0]
        for measure in MEASURES:
            ways = [by_way(args, each, measure) for each in found]
            values = {way: np.array([w[way] for w in ways]) for way in WAYS}
            none, guided, best = values.values()
            values["guidance brings"] = guided - none
            values["best of N brings"] = best - guided
            results[size][measure] = {w: interval(v) for w, v in values.items()}
    if not results:
        print("No size is complete yet: no table.")
        return results
    text = (
        f"{args.steps} steps of {args.batch_size} pictures, {args.seeds} seeds. "
        f"Retrieval in % of {args.queries} captions of `{args.split}` at most, "
        f"guidance {args.guidance_scale:g}, best of {args.best_of} by "
        f"{'a CoCa' if args.coca else 'likelihood'}; 95 % intervals.\n\n"
        + "\n\n".join([losses(results), *(retrieval(results, m) for m in MEASURES)])
    )
    write_report(args.out, results, text)
    print(text)
    plot(args, results)
    show(args, rows_of_best)
    return results


def plot(args, results):
    """Writes `loss.png`, over the steps, and `retrieval.png`, over the sizes."""
    curves = {
        f"{size}, {r['parameters'] / 1e6:.1f}M": (
            args.steps_per_epoch * (1 + np.arange(len(r["curve"]))),
            r["curve"],
        )
        for size, r in results.items()
    }
    title = f"held-out loss, nats a token, to step {args.steps}"
    draw_curves(args.out / "loss.png", title, curves, "", from_zero=False)
    octaves = np.log2([r["parameters"] for r in results.values()])
    curves = {
        way: (octaves, [100 * r[args.measure][way][0] for r in results.values()])
        for way in WAYS
    }
    title = f"{WORDS[args.measure]}, over the size, {' to '.join(results)}"
    draw_curves(args.out / "retrieval.png", title, curves, "%")


def show(args, found):
    """Writes `best.png`: of each size's first seed the best guided samples."""
    first = next(iter(found.values()))
    rows = [(size, arrays["best"][:COLUMNS]) for size, arrays in found.items()]
    title = f"The best of {args.num_samples}, guidance {args.guidance_scale:g}"
    prompts = [str(prompt) for prompt in first["prompts"][:COLUMNS]]
    strip(rows, prompts, title=title).save(args.out / "best.png")


def main(argv=None):
    """Does what is missing, then reports; returns the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--tokens", type=Path, help="token cache; without one nothing is done")
    add("--vocab", type=Path, default=Path("runs/vocab/vocabulary.model"))
    add("--tokenizer", type=Path, default=Path("runs/tokenizer"))
    add("--coca", type=Path, help="chooses the best of 16")
    add("--data", default="emoji_captions/small", help="picture set of the cache")
    add("--preset", default="parti_emoji", help="what the sizes have in common")
    add("--out", type=Path, default=Path("runs/scaling"))
    add("--steps", type=int, default=3000)
    add("--steps-per-epoch", type=int, default=100)
    add("--batch-size", type=int, default=32)
    add("--learning-rate", type=float, default=1e-3)
    add("--seeds", type=int, default=3)
    add("--queries", type=int, default=60, help="captions drawn")
    add("--split", default="heldout_style", help="whose captions")
    add("--num-samples", type=int, default=16, help="drawn for each caption")
    add("--best-of", type=int, default=16, help="of which the best is taken")
    add("--gallery", nargs="+", help="splits to look among (default: all)")
    add("--guidance-scale", type=float, default=1.5)
    add("--features", default="joined", help="joined needs the extra evaluation")
    add("--measure", choices=MEASURES, default="name@5", help="what the plot shows")
    add("--only", help="one run, such as large-0; the table when all are there")
    add("--digits", action="store_true", help="on digits, which need no preparation")
    add("--quick", action="store_true", help="tiny, to see it run")
    args = parser.parse_args(argv)
    args.sizes, args.fields = SIZES, {}
    if args.digits:
        parser.set_defaults(**DIGITS)
        args = parser.parse_args(argv)
        args.sizes, args.fields = DIGIT_SIZES, DIGIT_FIELDS
        args.tokens, args.vocab, args.tokenizer, args.coca = digit_set(DIGIT_SET)
    if args.quick:
        args.out, args.sizes = Path("runs/quick/scaling"), TOY_SIZES
        args.tokens, args.vocab, args.tokenizer, args.data = toy_set(
            Path("runs/quick/set")
        )
        args.preset, args.features, args.seeds = "parti_tiny", "pixels", 2
        args.steps, args.steps_per_epoch, args.batch_size = 10, 5, 4
        args.queries, args.num_samples, args.best_of = 3, 4, 4
    if args.tokens is None:  # `make bench` comes by here
        print("This takes hours, and a token cache: --tokens DIR. Nothing measured.")
        return {}
    runs = {
        (size, seed): args.out / "runs" / f"{size}-{seed}"
        for size in args.sizes
        for seed in range(args.seeds)
    }
    # Seed by seed: with the first seed of all sizes there is something to look at.
    for (size, seed), folder in sorted(runs.items(), key=lambda item: item[0][1]):
        wanted = args.only in (None, folder.name)
        if wanted and not (folder / "hits.npz").exists():
            print(f"{folder.name}:", flush=True)
            model, vocabulary = train(args, size, seed, folder)
            measure(args, model, vocabulary, folder.name, folder)
    return report(args, runs)


if __name__ == "__main__":
    sys.exit(0 if main() is not None else 1)
