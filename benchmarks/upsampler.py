"""Times WDSR: enlarging a picture, and a training step, beside PyTorch and older Keras.

    python benchmarks/upsampler.py --torch ENV/bin/python --addons ENV/bin/python
    python benchmarks/upsampler.py --quick       # a small one, to see it run

Beside it stand the same network in PyTorch as its authors wrote it, and in the Keras of
2020 with tensorflow-addons (`benchmarks/parts`), each with weights normalised at every
call. The ENVs have `pip install torch`, and what
tests/goldens/weight_normalization/requirements.txt lists; a row whose ENV is not given
is left out. Each figure is the best of `--rounds` in a process of its own; all run one
after the other, `--repeats` times over.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from parts.timing import best_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PARTS = Path(__file__).parent / "parts"
KINDS = ("folded", "normalised")
BATCH = 8  # pictures of a training step


def measure(kind, dtype, side, train, args):
    """Times our model in this process."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_parti.models import WDSR

    policy = "mixed_bfloat16" if dtype == "bfloat16" else "float32"
    model = WDSR.from_preset(args.preset, dtype=policy)
    parameters = model.count_params()
    images = tf.random.uniform((train or 1, side, side, 3))
    if train:
        targets = tf.random.uniform((train, *(model.scale * side,) * 2, 3))
        model.compile(
            keras.optimizers.Adam(1e-4),
            loss={"images": keras.losses.MeanAbsoluteError()},
            jit_compile=False,
        )

        def step():
            model.train_on_batch(images, {"images": targets})

    else:
        graph = tf.function((model.fold() if kind == "folded" else model).upscale)

        def step():
            return np.asarray(graph(images))

    return {"seconds": best_of(step, args.rounds), "parameters": parameters}


def commands(args, train):
    """Lists what is timed: label, precision, and the command of its process."""
    from keras_parti import presets

    side = args.train_side if train else args.side
    options = ["--rounds", str(args.rounds)]
    own = [sys.executable, __file__, *options, "--preset", args.preset]
    found = []
    for dtype in ("float32", "bfloat16"):
        for kind in KINDS[1:] if train else KINDS:
            one = ["--one", kind, dtype, str(side), str(train)]
            found.append((f"keras_parti, {kind}", dtype, [*own, *one]))
    config = {"num_blocks": 16, "filters": 32, "expansion": 4}
    config |= presets.WDSR[args.preset].config
    names = ("scale", "num_blocks", "filters", "expansion")
    sizes = [str(config[name]) for name in names]
    sizes += [str(side), *options, "--train", str(train)]
    for python, script, label, dtypes in (
        (args.torch, "torch_wdsr.py", "PyTorch", ("float32", "bfloat16")),
        (args.addons, "addons_wdsr.py", "Keras 2 + tensorflow-addons", ("float32",)),
    ):
        for dtype in dtypes if python else ():
            command = [python, os.fspath(PARTS / script), dtype, *sizes]
            found.append((label, dtype, command))
    return found


def main(argv=None):
    """Prints a table for enlarging and one for training; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="Python of an environment with PyTorch")
    parser.add_argument("--addons", help="Python of one with tensorflow-addons")
    parser.add_argument("--preset", default="wdsr_a_x2", help="of blocks A, not staged")
    parser.add_argument("--side", type=int, default=256, help="of the picture, pixels")
    parser.add_argument("--train-side", type=int, default=48, help="when training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a small network")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.quick:
        args.preset, args.side, args.train_side = "wdsr_emoji", 64, 16
        args.rounds, args.repeats = 3, 1
    if args.one:
        kind, dtype, side, train = args.one
        print(json.dumps(measure(kind, dtype, int(side), int(train), args)))
        return None
    rows = {}
    for _ in range(args.repeats):
        for train in (0, BATCH):
            for label, dtype, command in commands(args, train):
                row = timed(label, dtype, command)
                if row:
                    best = rows.get((train, label, dtype), row)
                    row["seconds"] = min(row["seconds"], best["seconds"])
                    rows[train, label, dtype] = row
    for train, title in (
        (0, f"One picture of {args.side} × {args.side} enlarged"),
        (BATCH, f"A training step of {BATCH} of {args.train_side} × {args.train_side}"),
    ):
        print_part(
            title, {key[1:]: row for key, row in rows.items() if key[0] == train}
        )
    return rows


def timed(label, dtype, command):
    """Runs a process that prints a row; returns None where it fails, and says so."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{label}, {dtype} failed: {done.stderr.strip()[-300:]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def print_part(title, rows):
    """Prints a table, beside the fastest peer."""
    peers = [r["seconds"] for (label, _), r in rows.items() if "parti" not in label]
    print(f"\n{title}\n")
    print("| what | precision | parameters | milliseconds | fastest peer / this |")
    print("| --- | --- | ---: | ---: | ---: |")
    for (label, dtype), row in rows.items():
        ratio = f"{min(peers) / row['seconds']:.2f}" if peers else "-"
        print(
            f"| {label} | {dtype} | {row['parameters']:,} "
            f"| {1000 * row['seconds']:.1f} | {ratio} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
