"""Times a step of sampling, beside peers and beside the machine's own limit.

    python benchmarks/sampling.py                        # 1,024 ids; some minutes
    KERAS_BACKEND=jax python benchmarks/sampling.py      # compiled by XLA
    python benchmarks/sampling.py --peers peers/bin/python   # and the peers; an hour
    python benchmarks/sampling.py --memory               # parti_350m, 16 samples
    python benchmarks/sampling.py --quick                # a minute, to see it run

One model for all: 8 layers each of encoder and decoder, 512 wide, 8 heads, 8,192 codes,
a text of 64 ids; guidance on, so that a picture is two rows. A step is one position of
all rows, what comes before the loop shared out over the steps; times are the best of
`--rounds` whole pictures. Peers that know no guidance get twice the rows, which is
guidance's work. They are no requirements, and live in an environment of their own:

    python -m venv peers
    peers/bin/pip install torch transformers keras-hub tensorflow parti-pytorch

The limit is the longer of two: the loop's matrix products alone, and the bytes that a
step must read, at the bandwidth with which this machine sums up an array.

Writes `sampling.png` into `--out`: the time of a step over the position.
"""

import argparse
import json
import os
import resource
import subprocess
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from parts.curves import draw_curves
from parts.timing import best_of

PEERS = ("keras-hub", "transformers", "parti-pytorch")
CASE = {
    "encoder_layers": 8,
    "decoder_layers": 8,
    "dim": 512,
    "heads": 8,
    "mlp_dim": 2048,
    "text_length": 64,
    "num_codes": 8192,
    "num_tokens": 1024,
}
QUICK = {"encoder_layers": 1, "decoder_layers": 1, "num_codes": 512, "num_tokens": 64}
SAMPLES = (1, 16)


def arguments_of(config, samples, scale=3.0):
    """Returns arguments of `generate_ids` for samples of one prompt."""
    from keras_parti import sampling

    text = np.arange(4, 4 + config.text_length, dtype="int32")[None]
    seeds = sampling.seed_words(np.arange(samples))
    options = np.float32(scale), np.float32(1), np.int32(0), np.float32(1)
    return text, seeds, *(np.full(samples, option) for option in options)


def picture(model, samples, rounds):
    """Returns the seconds of whole pictures of one prompt."""
    from keras_parti import sampling
    from keras_parti.compiled import compiled

    run = compiled(lambda *a: sampling.generate_ids(model, *a), model)
    arguments = arguments_of(model.config, samples)
    return best_of(lambda: run(*arguments), rounds)


def over_positions(model, samples, rounds):
    """Returns the seconds of a step in each row of ids: the best of some pictures."""
    from keras_parti import sampling
    from keras_parti.compiled import compiled

    begin = compiled(lambda *a: sampling.begin(model, *a), model, numpy=False)
    advance = compiled(lambda *a: sampling.advance(model, *a), model, numpy=False)
    text, *options = arguments_of(model.config, samples)
    width, best = model.config.width, []
    for _ in range(rounds + 1):
        tensors, state = begin(text, options[0])
        times = []
        for stop in range(width, model.config.num_tokens + 1, width):
            begun = time.perf_counter()
            state = advance(tensors, state, tuple(options), np.int32(stop))
            np.asarray(state["ids"])
            times.append((time.perf_counter() - begun) / width)
        best.append(times)
    return np.min(best[1:], axis=0)


def products_alone(model, rows, rounds, steps=16):
    """Returns the seconds of a step's matrix products, weights laid out alike."""
    from keras import ops

    from keras_parti.compiled import compiled
    from keras_parti.decoding import CachedDecoder, feature_axis, linear, turned

    # In this order each product takes outputs of the one before.
    names = ("attention", "attention_output", "cross_attention")
    names += ("cross_attention_output", "wide", "narrow")
    pack = compiled(lambda: CachedDecoder(model).pack(), model, numpy=False)
    axis = feature_axis(rows, model.compute_dtype)
    last = feature_axis(rows, "float32")

    def first(x, size):
        return x[:size] if axis == 0 else x[:, :size]

    def repeat(weights, x):
        def step(i, x):
            for block in weights["blocks"]:
                for name in names:
                    x = linear(first(x, block[name][0].shape[1]), block[name], axis)
            y = ops.cast(turned(x, axis, last), "float32")
            y = turned(linear(y, weights["logits"], last), last, axis)
            return i + 1, ops.cast(first(y, model.config.dim), model.compute_dtype)

        return ops.while_loop(lambda i, _: i < steps, step, (0, x))[1]

    run = compiled(repeat, model)
    x = turned(ops.zeros((rows, model.config.dim), model.compute_dtype), -1, axis)
    weights = pack()
    return best_of(lambda: run(weights, x), 4 * rounds) / steps


def bandwidth(rounds):
    """Returns bytes a second with which all cores together sum up 512 MB."""
    import tensorflow as tf

    array = tf.ones((2**27,), "float32")
    total = tf.function(tf.reduce_sum)
    return 4 * 2**27 / best_of(lambda: total(array).numpy(), 4 * rounds)


def bytes_of_step(model, samples):
    """Returns, by name, the bytes that a step reads: everything at least once."""
    from keras_parti.decoding import CachedDecoder

    decoder, config = CachedDecoder(model), model.config
    rows = 2 * samples
    item = 2 if model.compute_dtype == "bfloat16" else 4
    layer = 6 * config.dim**2 + 2 * config.dim * config.mlp_dim
    weights = config.decoder_layers * layer
    kept = sum(2 * rows * config.dim * length for length in decoder.windows())
    memory = 2 * 2 * config.decoder_layers * config.text_length * config.dim
    terms = {"weights": weights, "own keys and values": kept, "of the text": memory}
    read = {name: item * value for name, value in terms.items()}
    read["weights"] += 4 * config.dim * config.num_codes  # always float32
    return read


def ours(config, dtype, rounds, out):
    """Prints our rows of the table; returns seconds a step by number of samples."""
    from keras_parti.models import Parti

    model = Parti(config, dtype=dtype)
    rate = bandwidth(rounds)
    print(f"Memory: {rate / 1e9:.1f} GB/s\n")
    print("| samples | ms a step | products alone | bytes alone | of the limit |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    seconds, curves = {}, {}
    for samples in SAMPLES:
        step = picture(model, samples, rounds) / config.num_tokens
        products = products_alone(model, 2 * samples, rounds)
        read = sum(bytes_of_step(model, samples).values()) / rate
        limit = max(products, read)
        print(
            f"| {samples} | {1e3 * step:.1f} | {1e3 * products:.1f} | "
            f"{1e3 * read:.1f} | {limit / step:.0%} |",
            flush=True,
        )
        seconds[samples] = step
        curves[samples] = over_positions(model, samples, rounds)
    few, many = SAMPLES
    print(f"\n{many} samples cost {seconds[many] / seconds[few]:.1f} × one.")
    for samples, curve in curves.items():
        ratio = curve[-1] / curve[0]
        print(f"{samples} samples: the last row of ids costs {ratio:.2f} × the first.")
    draw_curves(
        out / "sampling.png",
        "milliseconds of a step of sampling, from the first row of ids to the last",
        {
            f"{samples} sample{'s' * (samples > 1)}": (range(len(curve)), 1e3 * curve)
            for samples, curve in curves.items()
        },
        "ms",
    )
    return seconds


def compare(python, config, rounds, step):
    """Runs each peer in a process of its own; prints the table of peers."""
    script = Path(__file__).parent / "parts" / "sampling_peers.py"
    names = ("encoder_layers", "decoder_layers", "dim", "heads", "mlp_dim")
    names += ("text_length", "num_codes", "num_tokens")
    shape = {name: getattr(config, name) for name in names}
    print("\n| peer | ms a step | ours is faster by |")
    print("| --- | ---: | ---: |")
    for name in PEERS:
        command = [python, str(script), name, json.dumps(shape), str(rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"| {name} | could not be run: see above | |", flush=True)
            continue
        seconds = float(done.stdout.splitlines()[-1])
        print(f"| {name} | {1e3 * seconds:.1f} | {seconds / step:.1f} × |", flush=True)


def memory(preset, samples):
    """Samples with a large model; prints the peak and the terms that explain it."""
    from keras_parti.models import Parti

    def peak():
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    base = peak()
    model = Parti.from_preset(preset)
    built = peak()
    picture(model, samples, 0)
    terms = bytes_of_step(model, samples)
    explained = {
        "Python, TensorFlow": base,
        "weights of the model": 4 * model.count_params(),
        "weights as a step reads them": terms["weights"],
        "own keys and values": terms["own keys and values"],
        "keys and values of the text": terms["of the text"],
    }
    for name, size in explained.items():
        print(f"{name:30} {size / 1e6:9,.0f} MB")
    print(f"{'together':30} {sum(explained.values()) / 1e6:9,.0f} MB")
    print(f"{'peak, model alone':30} {built / 1e6:9,.0f} MB")
    print(f"{'peak':30} {peak() / 1e6:9,.0f} MB")
    return peak(), explained


def main(argv=None):
    """Prints the tables; returns seconds a step by number of samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="of the peers' environment")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts")
    parser.add_argument("--memory", action="store_true", help="parti_350m's peak")
    parser.add_argument("--out", type=Path, default=Path("runs/sampling"))
    parser.add_argument("--quick", action="store_true", help="one layer, 64 ids")
    args = parser.parse_args(argv)
    if args.memory:
        return memory("parti_tiny" if args.quick else "parti_350m", 16)

    from keras_parti.models import PartiConfig

    fields = CASE | {"attention_kernel": 11} | (QUICK if args.quick else {})
    config = PartiConfig(**fields)
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = ours(config, args.dtype, args.rounds, args.out)
    if args.peers:
        compare(args.peers, config, args.rounds, seconds[SAMPLES[0]])
    return seconds


if __name__ == "__main__":
    main()
