"""Shows that encoding and decoding stream: memory over time does not grow with the set.

    python benchmarks/memory.py            # 10,000 of 64x64, 500 of 256x256; an hour
    python benchmarks/memory.py --quick    # 200 tiny pictures, to see it run

Encoding reads a folder of PNG files and writes a token cache, as `keras-parti encode`
does; decoding reads the cache and makes pictures of its ids, a batch at a time. Each
is a process of its own, whose resident memory another process' eye would see: read from
/proc five times a second. Prints a Markdown table, and draws the curves into
`--out`/memory.png. What should not grow is the difference between the tenth and the
last tenth of a run; what all of the pictures would take at once stands beside it.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from parts.curves import draw_curves
from PIL import Image

CASES = {  # preset: pictures
    "vit_vqgan_emoji": 10_000,
    "vit_vqgan_small": 500,
}
QUICK = {"vit_vqgan_tiny": 200}
INTERVAL = 0.2  # seconds
DIFFERENT = 100  # picture files with contents of their own; the rest are links to them


@contextlib.contextmanager
def watched():
    """Gives a list that grows: pairs of seconds and resident bytes of this process."""
    begun, done, curve = time.perf_counter(), threading.Event(), []

    def watch():
        while not done.wait(INTERVAL):
            with open("/proc/self/status") as file:
                (line,) = [line for line in file if line.startswith("VmRSS")]
            curve.append((time.perf_counter() - begun, 1024 * int(line.split()[1])))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield curve
    finally:
        done.set()
        thread.join()


def write_pictures(folder, count, size):
    """Writes PNG files of noise, each but the first hundred a link to one of these."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        path = folder / f"{i:05d}.png"
        if i < DIFFERENT:
            pixels = rng.integers(256, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        else:
            path.hardlink_to(folder / f"{i % DIFFERENT:05d}.png")


def measure(part, preset, folder, count):
    """Encodes or decodes in this process; returns the curve of memory."""
    from keras_parti import data
    from keras_parti.compiled import compiled
    from keras_parti.models import ViTVQGAN
    from keras_parti.training.preparation import encode_set

    model = ViTVQGAN.from_preset(preset)
    pictures, tokens = folder / "pictures", folder / "tokens"
    with watched() as curve:
        if part == "encode":
            write_pictures(pictures, count, model.config.image_size)
            encode_set(model, pictures, tokens)
        else:
            run = compiled(lambda ids: {"y": model.decode(ids)}, model)
            for split in data.splits(pictures):
                examples = data.read_token_cache(tokens, split)
                for batch in examples.map(lambda e: e["ids"]).batch(32):
                    run(batch)
    return curve


def main(argv=None):
    """Prints the table; returns its rows by (preset, part)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    parser.add_argument("--quick", action="store_true", help="200 tiny pictures")
    parser.add_argument("--one", nargs=4, metavar=("PART", "PRESET", "DIR", "COUNT"))
    args = parser.parse_args(argv)
    if args.one:
        part, preset, folder, count = args.one
        print(json.dumps(measure(part, preset, Path(folder), int(count))))
        return None

    args.out.mkdir(parents=True, exist_ok=True)
    curves, rows = {}, {}
    print("| run | pictures | seconds | first tenth, MB | last tenth | peak | all |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for preset, count in (QUICK if args.quick else CASES).items():
        with tempfile.TemporaryDirectory() as folder:
            for part in ("encode", "decode"):
                one = ["--one", part, preset, folder, str(count)]
                done = subprocess.run(
                    [sys.executable, __file__, *one],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                curve = json.loads(done.stdout.splitlines()[-1])
                curves[f"{part} {preset}"] = curve
                rows[preset, part] = tell(part, preset, count, curve)
    shares = {}
    for label, curve in curves.items():
        seconds, sizes = np.array(curve).T
        shares[f"{label}: {seconds[-1]:.0f} s"] = (seconds / seconds[-1], sizes / 1e9)
    title = "resident memory over the course of each run"
    draw_curves(args.out / "memory.png", title, shares, "GB")
    return rows


def tell(part, preset, count, curve):
    """Prints a row; returns its megabytes: first tenth, last tenth, peak."""
    from keras_parti import presets

    size = presets.VIT_VQGAN[preset].config.get("image_size", 256)
    sizes = np.array([size for _, size in curve]) / 1e6
    tenth = max(1, len(sizes) // 10)
    # Starting up takes part of the first tenth; its peak is what counts there.
    figures = sizes[:tenth].max(), sizes[-tenth:].max(), sizes.max()
    everything = count * size * size * 3 * 4 / 1e6
    print(
        f"| {part}, {preset} | {count:,} | {curve[-1][0]:.0f} | "
        + " | ".join(f"{each:,.0f}" for each in (*figures, everything))
        + " |",
        flush=True,
    )
    return figures


if __name__ == "__main__":
    main()
