"""Times a training step on a mesh beside the Keras step, and two cores beside one.

    python benchmarks/mesh.py            # parti_emoji, 16 pictures a step
    python benchmarks/mesh.py --quick    # tiny, to see it run

What Mesh-TensorFlow's graph costs is its step on a mesh of one device over the step of
the Keras model, both with Adafactor: in one process, in turns, the best of `--rounds`.
How it scales is the same batch on two virtual devices, on two cores, beside one device
on one core; half the time would be ideal. Prints a Markdown table.
"""

import argparse
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# (name, mesh, layout, cores)
SCALING = (
    ("one device, one core", "", "", 1),
    ("two devices, data parallel, two cores", "data:2", "data_parallel", 2),
    ("two devices, model parallel, two cores", "model:2", "model_parallel", 2),
)


def random_ids(config, batch_size):
    """Returns ids of texts and images, int32."""
    import numpy as np

    random = np.random.default_rng(0)
    text = random.integers(3, config.text_vocab_size, (batch_size, config.text_length))
    image = random.integers(0, config.num_codes, (batch_size, config.num_tokens))
    return {"text_ids": text.astype("int32"), "image_ids": image.astype("int32")}


def mesh_step(config, batch_size, mesh="", layout=""):
    """Returns a function that takes a step on a mesh."""
    from keras_parti.mesh import Layout, MeshStep, from_keras
    from keras_parti.models import Parti

    step = MeshStep(config, Layout(mesh, layout), batch_size)
    step.load(from_keras(Parti(config)))
    ids = random_ids(config, batch_size)
    return lambda: step.train(ids, 1e-4)


def keras_step(config, batch_size):
    """Returns a function that takes a step of the Keras model."""
    from keras_parti.models import Parti
    from keras_parti.training.parti import compile_parti

    model = Parti(config)
    compile_parti(model, 1e-4, optimizer="adafactor")
    ids = random_ids(config, batch_size)
    return lambda: model.train_on_batch(ids, ids["image_ids"])


def best(steps, rounds):
    """Returns the least seconds of each function, called in turns."""
    seconds = [[] for _ in steps]
    for _ in range(rounds + 1):
        for step, found in zip(steps, seconds, strict=True):
            begun = time.perf_counter()
            step()
            found.append(time.perf_counter() - begun)
    return [min(found[1:]) for found in seconds]  # the first builds


def measure(args):
    """Runs one row in this process; returns seconds."""
    from keras_parti.models import Parti

    config = Parti.preset_config(args.preset)
    if args.row == "overhead":
        steps = keras_step(config, args.batch), mesh_step(config, args.batch)
        return best(steps, args.rounds)
    _, mesh, layout, cores = SCALING[int(args.row)]
    # Before TensorFlow counts them.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    return best([mesh_step(config, args.batch, mesh, layout)], args.rounds)


def main(argv=None):
    """Prints the table; returns the mesh graph's seconds over the Keras step's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="parti_emoji", help="size of the model")
    parser.add_argument("--batch", type=int, default=16, help="pictures a step")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="tiny, one round")
    args = parser.parse_args(argv)
    if args.quick:
        args.preset, args.batch, args.rounds = "parti_tiny", 4, 1
    if args.row:
        print(json.dumps(measure(args)))
        return None
    options = ["--preset", args.preset, "--batch", args.batch, "--rounds", args.rounds]

    def row(name):
        command = [sys.executable, __file__, *map(str, options), "--row", str(name)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    keras_seconds, mesh_seconds = row("overhead")
    ratio = mesh_seconds / keras_seconds
    print("| step | seconds | beside it | ideal |\n| --- | ---: | ---: | ---: |")
    print(f"| Keras, one device | {keras_seconds:.3f} | 1 | 1 |")
    print(f"| mesh, one device | {mesh_seconds:.3f} | {ratio:.2f} | 1 |")
    alone = None
    for number, (name, *_, cores) in enumerate(SCALING):
        (seconds,) = row(number)
        alone = alone or seconds
        beside = f"{seconds / alone:.2f} | {1 / cores:g}"
        print(f"| mesh, {name} | {seconds:.3f} | {beside} |")
    return ratio


if __name__ == "__main__":
    main()
