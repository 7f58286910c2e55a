"""Times the FID of folders of pictures, beside the PyTorch package of that name.

    python benchmarks/fid.py --peers peers/bin/python       # 2 x 1,000 pictures of 256²
    python benchmarks/fid.py --count 5000 --dtypes float32   # 10,000: memory stays
    python benchmarks/fid.py --quick                        # a minute, ours alone

Both read the same PNG files with the same weights and the same two threads; a second
line of ours computes the network in bfloat16. Said are seconds in all, pictures a
second, the peak of memory and the distance. Weights are drawn from a formula: what is
timed does not depend on them, and the real ones come with no package. The package is no
requirement, and lives in an environment of its own:

    python -m venv peers
    peers/bin/pip install torch torchvision pytorch-fid "scipy<1.18"
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FORMULA = ROOT / "tests" / "fixtures" / "inception"

# Saved in the old format, as the published file is. `pytorch_fid` is timed as its
# command runs it: its data loader, its batches of 50, its statistics, SciPy's root.
PEER = """
import os, resource, sys, time
import torch
for name in ("nms", "qnms"):
    form = "(Tensor a, Tensor b, float c) -> Tensor"
    torch.library.define(f"torchvision::{name}", form)
from pytorch_fid import fid_score, inception
torch.set_num_threads(int(sys.argv[4]))
weights = torch.load(sys.argv[1], weights_only=True)
inception.load_state_dict_from_url = lambda *_, **__: weights
begun = time.perf_counter()
value = fid_score.calculate_fid_given_paths(
    sys.argv[2:4], 50, torch.device("cpu"), 2048, num_workers=int(sys.argv[4]))
seconds = time.perf_counter() - begun
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(f"result {seconds} {memory} {value}")
"""

SAVE = """
import sys, numpy, torch
with numpy.load(sys.argv[1]) as file:
    weights = {name: torch.from_numpy(file[name]) for name in file.files}
torch.save(weights, sys.argv[2], _use_new_zipfile_serialization=False)
"""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="pictures of each kind")
    parser.add_argument("--size", type=int, default=256, help="their side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", help="a Python with pytorch-fid")
    parser.add_argument("--quick", action="store_true", help="8 pictures of 32 pixels")
    parser.add_argument("--ours", help=argparse.SUPPRESS)  # the folder; one run of ours
    dtypes = ["float32", "mixed_bfloat16"]
    parser.add_argument("--dtypes", nargs="+", default=dtypes, help="of ours")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.size = 8, 32
    if args.ours:
        return _ours(Path(args.ours), args)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        _write_pictures(folder, args.count, args.size)
        weights = _weights()
        np.savez(folder / "weights.npz", **weights)
        if args.peers:
            _call(args.peers, SAVE, folder / "weights.npz", folder / "weights.pth")
            paths = [folder / name for name in ("weights.pth", "a", "b")]
            _tell("pytorch-fid", args, _call(args.peers, PEER, *paths, args.threads))
        for dtype in args.dtypes:
            command = [sys.executable, __file__, "--ours", str(folder)]
            command += ["--dtypes", dtype]
            for name in ("count", "size", "threads"):
                command += [f"--{name}", str(getattr(args, name))]
            _tell(f"keras_parti, {dtype}", args, _result(command))


def _ours(folder, args):
    """One run, in a process of its own: prints seconds, GB and the distance."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    from keras_parti.evaluation import fid, inception

    with np.load(folder / "weights.npz") as file:
        weights = dict(file)
    inception.read_torch_file = lambda path: weights
    begun = time.perf_counter()
    network = inception.InceptionFeatures("weights.pth", args.dtypes[0])
    sides = [
        fid.picture_statistics(_read(folder / name), network, args.count, name)
        for name in ("a", "b")
    ]
    distance = fid.distances.frechet_distance(*sides)
    seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"result {seconds} {memory} {distance}")


def _read(folder):
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            yield path.name, np.asarray(picture.convert("RGB"))


def _weights():
    sys.path.insert(0, str(FORMULA))
    import make

    with np.load(FORMULA / "features.npz") as file:
        shapes = json.loads(str(file["shapes"]))
    return make.weights_of({name: tuple(shape) for name, shape in shapes.items()})


def _write_pictures(folder, count, size):
    """Smooth random pictures, two kinds of them."""
    random = np.random.default_rng(0)
    for name, coarse in (("a", 8), ("b", 12)):
        (folder / name).mkdir()
        for i in range(count):
            small = random.integers(0, 256, (coarse, coarse, 3), np.uint8)
            picture = Image.fromarray(small).resize((size, size), Image.BICUBIC)
            picture.save(folder / name / f"{i:05d}.png", compress_level=1)


def _call(python, program, *arguments):
    return _result([python, "-c", program, *map(str, arguments)])


def _result(command):
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    return [float(word) for word in lines[0].split()[1:]] if lines else None


def _tell(name, args, result):
    seconds, memory, distance = result
    rate = 2 * args.count / seconds
    print(
        f"{name:28} {seconds:8.1f} s  {rate:7.2f} pictures/s  {memory:5.2f} GB  "
        f"distance {distance:.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
