"""Whether a text encoder trained before Parti lowers Parti's early loss.

    python benchmarks/pretraining.py --tokens runs/tokens
    python benchmarks/pretraining.py --quick    # tiny, to see it run

For each seed one Parti is trained from random weights, and one that starts from the
same ones but for its text encoder, trained before on the same captions. Prints a table
of validation losses, the difference with its 95 % interval over seeds (Student's t),
and what the pretraining cost: the steps that Parti could have been trained for instead.
Interrupted, the same command goes on.
"""

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from parts.intervals import interval
from parts.toy_set import toy_set

from keras_parti.models import Parti, TextEncoder
from keras_parti.text import Vocabulary
from keras_parti.training.parti import train_parti
from keras_parti.training.preparation import caption_fields
from keras_parti.training.text_encoder import train_text_encoder


class Clock(keras.callbacks.Callback):
    """Adds the seconds of an epoch to its logs."""

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Reads it."""
        logs["seconds"] = time.perf_counter() - self.begun


def losses(path, column="val_loss"):
    """Returns a column of a `CSVLogger`'s file; of an epoch done twice the last."""
    with open(path, newline="") as file:
        rows = {int(row["epoch"]): float(row[column]) for row in csv.DictReader(file)}
    return [rows[epoch] for epoch in sorted(rows)]


def notes(folder):
    """Returns callbacks that write `losses.csv` in a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Clock(), keras.callbacks.CSVLogger(folder / "losses.csv", append=True)]


def run(args, seed):
    """Trains what is missing for a seed; returns losses without and with, seconds."""
    config = Parti.preset_config(args.preset)
    vocabulary = Vocabulary.from_file(args.vocab, config.text_length)
    fitted = caption_fields(args.tokens, config, vocabulary)
    folder = args.workdir / str(seed)
    options = {"warmup_steps": args.steps // 10, "seed": seed, "verbose": 2}

    keras.utils.set_random_seed(seed)
    encoder = TextEncoder.from_preset(args.preset, **fitted)
    train_text_encoder(
        encoder,
        args.tokens,
        vocabulary,
        folder / "encoder",
        steps=args.pretraining_steps,
        steps_per_epoch=args.steps_per_epoch,
        callbacks=notes(folder / "encoder"),
        **options,
    )
    found = []
    for name in ("without", "with"):
        keras.utils.set_random_seed(seed)
        parti = Parti.from_preset(args.preset, **fitted)
        if name == "with":
            encoder.give_encoder(parti)
        train_parti(
            parti,
            args.tokens,
            vocabulary,
            folder / name,
            steps=args.steps,
            batch_size=args.batch_size,
            steps_per_epoch=args.steps_per_epoch,
            callbacks=notes(folder / name),
            **options,
        )
        found.append(losses(folder / name / "losses.csv"))
    spent = [
        sum(losses(folder / name / "losses.csv", "seconds"))
        for name in ("encoder", "without")
    ]
    return found, spent


def main(argv=None):
    """Prints the table; returns the differences, (seeds, epochs)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=Path, help="token cache")
    parser.add_argument(
        "--vocab", type=Path, default=Path("runs/vocab/vocabulary.model")
    )
    parser.add_argument("--preset", default="parti_emoji")
    parser.add_argument("--pretraining-steps", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--steps-per-epoch", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--quick", action="store_true", help="tiny, to see it run")
    args = parser.parse_args(argv)
    if args.quick:
        args.workdir = Path("runs/quick/pretraining")
        args.tokens, args.vocab, _, _ = toy_set(Path("runs/quick/set"))
        args.preset, args.seeds, args.steps_per_epoch = "parti_tiny", 2, 5
        args.pretraining_steps, args.steps, args.batch_size = 10, 10, 4
    if args.tokens is None:  # `make bench` comes by here
        print("This takes an hour, and a token cache: --tokens DIR. Nothing measured.")
        return None
    runs = [run(args, seed) for seed in range(args.seeds)]
    found = np.array([pair for pair, _ in runs])  # (seeds, without/with, epochs)
    differences = found[:, 1] - found[:, 0]
    print("\n| steps of Parti | without | with | difference (95 %) |")
    print("| ---: | ---: | ---: | ---: |")
    for epoch in range(found.shape[-1]):
        difference, half = interval(differences[:, epoch].tolist())
        without, with_ = found[:, :, epoch].mean(0)
        print(
            f"| {(epoch + 1) * args.steps_per_epoch} | {without:.4f} | {with_:.4f} "
            f"| {difference:+.4f} ± {half:.4f} |"
        )
    encoder, parti = np.mean([spent for _, spent in runs], axis=0)
    print(
        f"\nPretraining took {encoder:.0f} s, as long as "
        f"{args.steps * encoder / parti:.0f} steps of Parti."
    )
    return differences


if __name__ == "__main__":
    main()
