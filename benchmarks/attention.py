"""Times attention over a raster, dense with a mask against sparse, and their memory.

    python benchmarks/attention.py

One layer of self-attention, forward and backward, in a process of its own for each
figure, because a process' peak of memory never falls. Dense is `MultiHeadAttention`
with the mask of the window; sparse is `WindowAttention`, which gives the same numbers.
Prints a Markdown table: seconds are the best of `--rounds`; memory is the peak of the
process during the steps above what it held before the layer's first.
"""

import argparse
import json
import math
import os
import subprocess
import sys

from parts.timing import best_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TOKENS = (256, 1024, 4096)
KERNEL = 11
UNITS = (("seconds", 1e3), ("bytes", 1e-6))


def measure(kind, tokens, args):
    """Runs one layer in this process; returns seconds, bytes and a number to compare.

    Args:
        kind: "dense" or "sparse".
        tokens: int. Length of the raster, a square.
        args: parsed arguments of the command.
    """
    import numpy as np
    import tensorflow as tf

    from keras_parti.layers import MultiHeadAttention, WindowAttention
    from keras_parti.layers.window import conv_mask

    width = math.isqrt(tokens)
    if kind == "dense":
        layer, mask = MultiHeadAttention(args.heads), conv_mask(KERNEL, width, width)
        arguments = {"attention_mask": tf.constant(mask)}
    else:
        layer, arguments = WindowAttention(args.heads, KERNEL, width), {}
    layer.build((None, tokens, args.dim))
    rng = np.random.default_rng(0)
    for weight in layer.trainable_variables:
        weight.assign(rng.normal(size=weight.shape) * args.dim**-0.5)
    x = tf.constant(rng.normal(size=(args.batch, tokens, args.dim)), tf.float32)

    @tf.function(jit_compile=args.xla)
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x, **arguments)))
        weights = [w.value for w in layer.trainable_variables]
        gradients = tape.gradient(loss, weights)
        return loss, tf.linalg.global_norm(gradients)

    # Clears the peak so far: TensorFlow's import is far above a small layer's step.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    seconds = best_of(lambda: step(x)[1].numpy(), args.rounds)
    peak = memory("VmHWM") - before
    loss, norm = (t.numpy() for t in step(x))
    return {
        "seconds": seconds,
        "bytes": peak,
        "check": [float(loss), float(norm)],
    }


def memory(field):
    """Returns a line of this process' status, in bytes."""
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith(field)]
    return 1024 * int(line.split()[1])


def main(argv=None):
    """Prints the table; returns its rows by (kind, tokens)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--xla", action="store_true", help="compile with XLA")
    parser.add_argument(
        "--quick", action="store_true", help="256 tokens, 64 wide, once"
    )
    parser.add_argument("--one", nargs=2, metavar=("KIND", "TOKENS"), help="one figure")
    args = parser.parse_args(argv)
    if args.quick:
        args.dim, args.rounds = 64, 1
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args)))
        return None

    options = [
        f"--{name}={getattr(args, name)}"
        for name in ("batch", "dim", "heads", "rounds")
    ]
    options += ["--xla"] * args.xla
    rows = {}
    print("| tokens | dense, ms | sparse, ms | dense, MB | sparse, MB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for tokens in TOKENS[:1] if args.quick else TOKENS:
        for kind in ("dense", "sparse"):
            done = subprocess.run(
                [sys.executable, __file__, *options, "--one", kind, str(tokens)],
                check=True,
                capture_output=True,
                text=True,
            )
            rows[kind, tokens] = json.loads(done.stdout.splitlines()[-1])
        dense, sparse = rows["dense", tokens], rows["sparse", tokens]
        for a, b in zip(dense["check"], sparse["check"], strict=True):
            if not math.isclose(a, b, rel_tol=1e-3):
                raise ValueError(f"Dense and sparse disagree: {dense} and {sparse}.")
        ms, mb = ([scale * r[unit] for r in (dense, sparse)] for unit, scale in UNITS)
        cells = " | ".join(f"{value:.0f}" for value in (*ms, *mb))
        print(f"| {tokens:,} | {cells} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
