"""Repeats the ablation of ViT-VQGAN, table 4, at small scale on natural photographs.

    python benchmarks/ablation.py            # 18 runs, half an hour on two cores
    python benchmarks/ablation.py --quick    # three steps each, to see it run

Codes with ℓ2-normalisation against plain ones, codes of 4, 8, 32 and 256 dimensions,
and a decoder larger than the encoder in the paper's proportion, each from three seeds.
A line of `--out` is a finished run: interrupted, the same command goes on. Prints a
table beside the paper's, with 95 % intervals over the seeds.

What is as in the paper: patches of 8x8, one code of 32 dimensions for each, β = 0.25, a
codebook drawn from a normal distribution and left alone, AdamW's β1, β2 and decay, the
losses of VQ, ℓ2 and logit-Laplace. What is smaller: pictures of 64x64, 1,024 codes,
towers of 2 blocks of 64, and 600 steps of 32 pictures. Perceptual and adversarial
losses are left out, and with them FID and Inception score.

What is other than in the paper, for every row alike: 200 steps without blocks and codes
come first. Without them 1,500 steps of 32 pictures use 3 % of the codes with
ℓ2-normalisation and 2 % without, and say nothing; the paper has 500,000 of 256.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from parts.intervals import interval

from keras_parti.data import augment
from keras_parti.evaluation.pictures import load_images
from keras_parti.losses import LogitLaplace
from keras_parti.metrics import CodebookUsage, psnr
from keras_parti.models import ViTVQGAN, ViTVQGANConfig
from keras_parti.optimizers import warmup_cosine
from keras_parti.training.guards import StopAtNonFinite
from keras_parti.training.tokenizer import PatchwiseViTVQGAN

SIZE = 64  # pixels along each side


def towers(encoder, decoder):
    """Fields of a config from (layers, dim, heads, mlp_dim) of each tower."""
    fields = ("layers", "dim", "heads", "mlp_dim")
    sides = {"encoder": encoder, "decoder": decoder}
    return {
        f"{side}_{field}": value
        for side, tower in sides.items()
        for field, value in zip(fields, tower, strict=True)
    }


# From (8, 512, 8, 2048) to (32, 1280, 16, 5120), table 2: four times the layers, twice
# the heads, 2.5 times the widths.
SMALL = (2, 64, 2, 256)
LARGE = (8, 160, 4, 640)
BASE = {"image_size": SIZE, "num_codes": 1024, **towers(SMALL, SMALL)}

# Name: (fields that differ, (ℓ1, ℓ2, usage) of table 4). The paper's rows are of base
# towers, but for the last, which stands for small + large, beside small + small.
VARIANTS = {
    "ℓ2-normalised, 32 dimensions": ({}, (3.06e-2, 3.09e-3, 0.96)),
    "plain, 32 dimensions": ({"normalized_codes": False}, (4.13e-2, 5.41e-3, 0.02)),
    "4 dimensions": ({"code_dim": 4}, (3.55e-2, 4.18e-3, 0.96)),
    "8 dimensions": ({"code_dim": 8}, (2.98e-2, 2.92e-3, 0.96)),
    "256 dimensions": ({"code_dim": 256}, (3.60e-2, 4.28e-3, 0.04)),
    "larger decoder": (towers(SMALL, LARGE), (2.93e-2, 2.88e-3, 0.95)),
}

# The paper weighs ℓ2 by 1; how it is summed is not published. As a mean over values it
# takes 10 to be worth as much as the codes' own loss.
LOSS_WEIGHTS = {"images": 10.0, "laplace": 0.1}


def train(fields, seed, images, args):
    """Trains one model, without codes first; returns it.

    Args:
        fields: dict of fields of `ViTVQGANConfig` beside `BASE`.
        seed: int. Seed of weights, order and crops.
        images: uint8 `(n, 96, 96, 3)`.
        args: parsed arguments of the command.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    config = ViTVQGANConfig(**{**BASE, **fields})
    patchwise = PatchwiseViTVQGAN(config)
    fit(patchwise, images, args.patchwise_steps, seed, args)
    model = ViTVQGAN(config)
    model.set_weights(patchwise.get_weights())
    fit(model, images, args.steps, seed, args)
    return model


def fit(model, images, steps, seed, args):
    """Trains on random crops of uint8 `(n, 96, 96, 3)`."""
    dataset = tf.data.Dataset.from_tensor_slices({"image": images})
    dataset = dataset.shuffle(len(images), seed=seed).repeat()
    dataset = dataset.map(lambda e: {"image": tf.cast(e["image"], tf.float32) / 255.0})
    dataset = augment(dataset, "tokenizer", SIZE, seed).batch(args.batch_size)
    dataset = dataset.map(
        lambda e: (e["image"], dict.fromkeys(LOSS_WEIGHTS, e["image"]))
    )
    model.compile(
        keras.optimizers.AdamW(
            warmup_cosine(args.learning_rate, max(1, steps // 20), steps),
            weight_decay=1e-4,
            beta_1=0.9,
            beta_2=0.99,
        ),
        loss={
            "images": keras.losses.MeanSquaredError(),
            "laplace": LogitLaplace(model.config.laplace_epsilon, -2.0),
        },
        loss_weights=LOSS_WEIGHTS,
        jit_compile=False,
    )
    model.fit(
        dataset.prefetch(2),
        steps_per_epoch=steps,
        verbose=0,
        shuffle=False,  # the dataset has its order; Keras would warn
        callbacks=[StopAtNonFinite()],
    )


def score(model, images):
    """Measures reconstructions of uint8 `(n, 64, 64, 3)`: ℓ1, ℓ2, PSNR and usage."""
    usage = CodebookUsage(model.config.num_codes)

    @tf.function(autograph=False)
    def reconstruct(images):
        ids = model.encode(images)
        return ids, model.decode(ids)

    errors = {"l1": [], "l2": [], "psnr": []}
    for start in range(0, len(images), 64):
        batch = images[start : start + 64].astype(np.float32) / 255.0
        ids, copies = reconstruct(tf.constant(batch))
        usage.update_state(ids)
        error = batch - copies.numpy()
        errors["l1"].append(np.abs(error).mean((1, 2, 3)))
        errors["l2"].append(np.square(error).mean((1, 2, 3)))
        errors["psnr"].append(keras.ops.convert_to_numpy(psnr(batch, copies)))
    scores = {name: float(np.concatenate(v).mean()) for name, v in errors.items()}
    return {**scores, "usage": float(usage.result())}


def read_runs(path):
    """Returns the finished runs of a file; half a line of a killed run is left out."""
    runs = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                runs.append(json.loads(line))
            except ValueError:
                continue
    return runs


def table(runs):
    """Returns the Markdown table of finished runs."""
    columns = [
        ("ℓ1 · 10²", "l1", 100),
        ("ℓ2 · 10³", "l2", 1000),
        ("PSNR, dB", "psnr", 1),
        ("usage, %", "usage", 100),
    ]
    names = [name for name, _, _ in columns]
    paper = ["paper ℓ1", "paper ℓ2", "paper usage"]
    lines = [
        f"| codes | seeds | {' | '.join(names + paper)} |",
        f"| --- |{' ---: |' * (1 + len(names + paper))}",
    ]
    for variant, (_, (l1, l2, used)) in VARIANTS.items():
        own = [run for run in runs if run["variant"] == variant]
        if not own:
            continue
        cells = [str(len(own))]
        for _, key, factor in columns:
            mean, half = interval([factor * run[key] for run in own])
            cells.append(f"{mean:.2f} ± {half:.2f}")
        cells += [f"{100 * l1:.2f}", f"{1000 * l2:.2f}", f"{used:.0%}"]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def smooth_pictures(count, size):
    """Random colour gradients, for `--quick`."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(256, size=(count, 4, 4, 3)).astype(np.float32)
    return tf.image.resize(coarse, (size, size), "bilinear").numpy().astype(np.uint8)


def main(argv=None):
    """Does the runs that are left, prints the table; returns all runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="photographs/crops", help="picture set")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="batches of a run")
    parser.add_argument(
        "--patchwise-steps", type=int, default=200, help="batches before, without codes"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument("--variant", help="the run of this name alone")
    parser.add_argument("--quick", action="store_true", help="three steps, one seed")
    args = parser.parse_args(argv)
    larger = round(12 / 8 * SIZE)  # what random crops are taken from
    if args.quick:
        args.seeds, args.steps, args.batch_size = 1, 3, 2
        args.patchwise_steps = 2
        args.out = Path("runs/quick/ablation.jsonl")
        args.out.unlink(missing_ok=True)
        images, held_out = smooth_pictures(8, larger), smooth_pictures(4, SIZE)
    else:
        images = load_images(args.data, "train", larger)
        held_out = load_images(args.data, "validation", SIZE)
    args.out.parent.mkdir(parents=True, exist_ok=True)

    settings = {
        "data": args.data,
        "patchwise_steps": args.patchwise_steps,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
    }
    runs = read_runs(args.out)
    if any(run["settings"] != settings for run in runs):
        raise SystemExit(f"{args.out} holds runs of other settings. Choose another.")
    done = {(run["variant"], run["seed"]) for run in runs}
    names = [args.variant] if args.variant else list(VARIANTS)
    todo = [
        (name, seed)
        for seed in range(args.seeds)
        for name in names
        if (name, seed) not in done
    ]
    for number, (name, seed) in enumerate(todo):
        begun = time.perf_counter()
        model = train(VARIANTS[name][0], seed, images, args)
        run = {"variant": name, "seed": seed, "settings": settings}
        run |= score(model, held_out)
        run["seconds"] = time.perf_counter() - begun
        runs.append(run)
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(run, ensure_ascii=False) + "\n")
        print(
            f"{number + 1} of {len(todo)}: {name}, seed {seed}: {run['psnr']:.2f} dB, "
            f"{run['usage']:.0%} of the codes, {run['seconds']:.0f} s",
            flush=True,
        )
    print(f"\n{len(images):,} pictures to train on, {len(held_out):,} held out.\n")
    print(table(runs))
    return runs


if __name__ == "__main__":
    main()
