"""Times ViT-VQGAN-small at 256x256: encode, decode and a training step of 4 pictures.

    python benchmarks/tokenizer.py --peers ENV/bin/python    # an hour on two cores
    python benchmarks/tokenizer.py --quick                   # tiny, to see it run

Beside it stand the peers in PyTorch: parti-pytorch's `VitVQGanVAE` of the same widths,
and the same equations written in plain PyTorch. ENV is a virtual environment of its own
with `pip install torch parti-pytorch`; without `--peers` their rows are left out. Each
figure comes from a process of its own and is the best of `--rounds`; all processes run
one after the other, `--repeats` times over, so that a machine whose speed drifts is
seen by all.

The limit is the time of all matrix products of the part alone, one after the other, in
TensorFlow at that precision; the share says how much of the time they make up.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

from parts.timing import best_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PARTS = ("encode", "decode", "train")
OURS = (
    ("float32", "graph"),
    ("float32", "xla"),
    ("bfloat16", "graph"),
    ("bfloat16", "xla"),
)
TORCH = Path(__file__).parent / "parts" / "torch_vit_vqgan.py"
QUICK = {
    "image_size": 32,
    "num_codes": 64,
    "code_dim": 8,
    **{f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in
       {"layers": 2, "dim": 64, "heads": 2, "mlp_dim": 128}.items()},
}  # fmt: skip


def products(config, part, batch):
    """Lists the matrix products of a part: how many, and their (batch, m, k, n).

    Training runs each product of the two towers three times: forward, and backward for
    either factor; the choice of codes has no gradient.
    """
    tokens = batch * config.num_tokens
    patch, codes = config.patch_size**2, (config.code_dim, config.num_codes)

    def tower(side, inputs, outputs):
        layers, dim, heads, mlp = (
            getattr(config, f"{side}_{field}")
            for field in ("layers", "dim", "heads", "mlp_dim")
        )
        length, kv = config.num_tokens, dim // heads
        return [
            (1, (1, tokens, inputs, dim)),
            (4 * layers, (1, tokens, dim, dim)),
            (layers, (batch * heads, length, kv, length)),
            (layers, (batch * heads, length, length, kv)),
            (layers, (1, tokens, dim, mlp)),
            (layers, (1, tokens, mlp, dim)),
            (1, (1, tokens, dim, mlp)),
            (1, (1, tokens, mlp, outputs)),
        ]

    encoder = tower("encoder", 3 * patch, config.code_dim)
    decoder = tower("decoder", config.code_dim, 6 * patch)
    nearest = [(1, (1, tokens, *codes))]
    if part == "encode":
        return encoder + nearest
    if part == "decode":
        return decoder
    forward = encoder + decoder
    swapped = [(n, (b, m, c, k)) for n, (b, m, k, c) in forward]
    weights = [(n, (b, k, m, c)) for n, (b, m, k, c) in forward]
    return forward + swapped + weights + nearest


def flops(config, part, batch):
    """The floating-point operations of `products`, 2·m·k·n each."""
    return sum(n * 2 * math.prod(shape) for n, shape in products(config, part, batch))


def limit(config, part, dtype, batch, rounds):
    """Seconds of the products of a part alone, each shape timed by itself."""
    import tensorflow as tf

    def seconds(b, m, k, n):
        left = tf.cast(tf.random.normal((b, m, k) if b > 1 else (m, k)), dtype)
        right = tf.cast(tf.random.normal((b, k, n) if b > 1 else (k, n)), dtype)
        # Eager: beside products of milliseconds the call's microseconds do not count.
        return best_of(lambda: tf.matmul(left, right), 3 * rounds)

    return sum(
        count * seconds(*shape) for count, shape in products(config, part, batch)
    )


def measure(part, dtype, compiler, args):
    """Times one part of our model in this process."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_parti.losses import LogitLaplace
    from keras_parti.models import ViTVQGAN

    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    fields = QUICK if args.quick else {}
    model = ViTVQGAN.from_preset("vit_vqgan_small", dtype=policy, **fields)
    config, rng = model.config, np.random.default_rng(0)
    # Blocks begin as identities: give every weight a value.
    for weight in model.trainable_variables:
        if not np.any(weight.numpy()):
            weight.assign(rng.normal(size=weight.shape) * 0.02)
    size = config.image_size
    images = tf.constant(rng.random((args.batch, size, size, 3)), tf.float32)
    ids = tf.constant(
        rng.integers(config.num_codes, size=(args.batch, config.num_tokens)), tf.int32
    )
    xla = compiler == "xla"
    if part == "train":
        model.compile(
            keras.optimizers.AdamW(1e-4, 1e-4, beta_1=0.9, beta_2=0.99),
            loss={
                "images": keras.losses.MeanSquaredError(),
                "laplace": LogitLaplace(config.laplace_epsilon, -2.0),
            },
            loss_weights={"images": 1.0, "laplace": 0.1},
            jit_compile=xla,
        )
        targets = {"images": images, "laplace": images}

        def run():
            model.train_on_batch(images, targets)

    else:
        function = model.encode if part == "encode" else model.decode
        compiled = tf.function(function, jit_compile=xla)
        argument = images if part == "encode" else ids

        def run():
            compiled(argument).numpy()

    seconds = best_of(run, args.rounds)
    row = {"seconds": seconds, "parameters": model.count_params()}
    if not xla:
        row["limit"] = limit(config, part, tf.as_dtype(dtype), args.batch, args.rounds)
        row["flops"] = flops(config, part, args.batch)
    return row


def commands(args):
    """Lists what is timed: label, precision, part, and the command of its process."""
    options = ["--rounds", str(args.rounds), *(["--quick"] if args.quick else [])]
    found = []
    for part in PARTS if args.part is None else [args.part]:
        for dtype, compiler in OURS:
            own = [sys.executable, __file__, *options, "--one", part, dtype, compiler]
            found.append((f"keras_parti, {compiler}", dtype, part, own))
        for dtype in ("float32", "bfloat16") if args.peers else ():
            for peer in ("plain", "parti-pytorch"):
                name = "plain PyTorch" if peer == "plain" else peer
                if (peer, part) != ("parti-pytorch", "train"):
                    command = [args.peers, os.fspath(TORCH), peer, part, dtype]
                    found.append((name, dtype, part, [*command, *options]))
    return found


def main(argv=None):
    """Prints a table for each part; returns the rows by (label, precision, part)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="Python of an environment with the peers")
    parser.add_argument("--part", choices=PARTS, help="this part alone")
    parser.add_argument("--batch", type=int, default=4, help="of ours; peers take 4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny model")
    parser.add_argument("--one", nargs=3, metavar=("PART", "DTYPE", "COMPILER"))
    args = parser.parse_args(argv)
    if args.quick:
        args.batch, args.rounds, args.repeats = 2, 1, 1
    if args.one:
        print(json.dumps(measure(*args.one, args)))
        return None

    rows = {}
    for _ in range(args.repeats):
        for label, dtype, part, command in commands(args):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{label}, {dtype}, {part} failed: {done.stderr.strip()[-300:]}")
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            known = rows.get((label, dtype, part), row)
            rows[label, dtype, part] = {
                key: min(value, known[key]) for key, value in row.items()
            }
    for part in PARTS:
        print_part(part, {k[:2]: row for k, row in rows.items() if k[2] == part})
    return rows


def print_part(part, rows):
    """Prints the table of a part, beside the fastest peer and the limit."""
    if not rows:
        return
    peers = [row["seconds"] for (label, _), row in rows.items() if "PyTorch" in label]
    peers += [row["seconds"] for (label, _), row in rows.items() if "parti-p" in label]
    limits = {dtype: row["limit"] for (_, dtype), row in rows.items() if "limit" in row}
    print(f"\n{part}\n")
    print(
        "| what | precision | parameters | seconds | fastest peer / this | products |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for (label, dtype), row in rows.items():
        ratio = f"{min(peers) / row['seconds']:.2f}" if peers else "-"
        share = f"{limits[dtype] / row['seconds']:.0%}" if dtype in limits else "-"
        print(
            f"| {label} | {dtype} | {row['parameters'] / 1e6:.1f} M "
            f"| {row['seconds']:.3f} | {ratio} | {share} |",
            flush=True,
        )
    for (_, dtype), row in rows.items():
        if "limit" in row:
            speed = row["flops"] / row["limit"] / 1e9
            print(
                f"\nThe products alone, {dtype}: {row['limit']:.3f} s, {speed:.0f} "
                f"GFLOP/s of {row['flops'] / 1e9:.0f} GFLOP."
            )


if __name__ == "__main__":
    main()
