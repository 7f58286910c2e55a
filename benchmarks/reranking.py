"""What it costs to rank 16 pictures by CoCa, beside sampling them.

    python benchmarks/reranking.py            # a minute on two idle cores
    python benchmarks/reranking.py --quick    # once each, with figures of noise

Sizes of the shipped model, untrained: time does not depend on weights. Sampling, with
and without guidance, decoding and ranking are timed in turns, and of each the fastest
counts.
"""

import argparse
import time

import numpy as np

from keras_parti import sampling
from keras_parti.compiled import compiled
from keras_parti.models import CoCa, Parti, ViTVQGAN
from keras_parti.models.choosing import score_samples

SAMPLES = 16


def works(tokenizer, parti, coca):
    """Returns a dict of what is timed to functions without arguments."""
    text_ids = np.array([[2, *range(10, 18), 3] + [0] * 22], "int32")
    seeds = sampling.seed_words(sampling.sample_seeds(0, SAMPLES, 1))
    ids = np.zeros((SAMPLES, tokenizer.config.num_tokens), "int32")
    side = tokenizer.config.image_size
    images = np.random.default_rng(0).random((SAMPLES, side, side, 3), "float32")

    def options(scale):
        ones = np.ones(SAMPLES, "float32")
        return scale * ones, ones, np.zeros(SAMPLES, "int32"), ones

    def draw(guided):
        function = compiled(
            lambda *x: sampling.generate_ids(parti, *x, guided=guided), parti
        )
        return lambda: function(text_ids, seeds, *options(1.0 + 0.5 * guided))

    decode = compiled(tokenizer.decode, tokenizer)
    score = compiled(lambda *x: score_samples(coca, *x), coca)
    return {
        "sampling": draw(False),
        "sampling, guided": draw(True),
        "decoding": lambda: decode(ids),
        "ranking": lambda: score(images, text_ids),
    }


def main(argv=None):
    """Prints the table; returns ranking's share of sampling without guidance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    timed = works(
        ViTVQGAN.from_preset("vit_vqgan_emoji"),
        Parti.from_preset("parti_emoji"),
        CoCa.from_preset("coca_emoji").reranker(),
    )
    fastest = dict.fromkeys(timed, float("inf"))
    for run in timed.values():
        run()  # compiles
    for _ in range(1 if args.quick else args.rounds):
        for name, run in timed.items():
            begun = time.perf_counter()
            run()
            fastest[name] = min(fastest[name], time.perf_counter() - begun)
    print(f"| {SAMPLES} pictures | s | % of sampling |\n|---|---:|---:|")
    for name, seconds in fastest.items():
        share = 100 * seconds / fastest["sampling"]
        print(f"| {name} | {seconds:.3f} | {share:.1f} |")
    return fastest["ranking"] / fastest["sampling"]


if __name__ == "__main__":
    main()
