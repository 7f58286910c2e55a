r"""Times a training step of Parti, beside PyTorch and beside the machine's own limit.

    python benchmarks/training.py                     # 4 layers, 512 wide, 16 x 256
    python benchmarks/training.py --case width_1024   # parti_350m's width
    python benchmarks/training.py --input             # the input pipeline alone
    python benchmarks/training.py --quick             # a minute, to see it run

A step is forward, backward, clipping and AdamW on one fixed batch, without dropout. The
limit is the time of one large matrix product of the step, the feed-forward layer's, in
the same framework and precision. PyTorch is no requirement: `pip install torch` into an
environment of its own that has this library too, else its rows are left out. On an
accelerator, through JAX and without TensorFlow:

    KERAS_BACKEND=jax python benchmarks/training.py --case parti_350m \
        --dtypes mixed_bfloat16 --peak 989

where `--peak` is the accelerator's dense bfloat16 TFLOP/s, for the model FLOP
utilisation: the products that the model's equations ask for, over what the accelerator
could have done in that time. Recomputed or masked products count for nothing more.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops
from parts.timing import best_of

from keras_parti.losses import TokenCrossEntropy
from keras_parti.models import Parti
from keras_parti.models.operations import parti_step_flops
from keras_parti.optimizers import AdamW

STILL = {
    "dropout_rate": 0.0,
    "condition_dropout_rate": 0.0,
    "image_mixing_rate": 0.0,
}
SMALL_TEXT = {"text_vocab_size": 2000, "text_length": 32}
CASES = {  # name: (fields of the config beside those of parti_350m, pictures a batch)
    "tiny": (
        {**SMALL_TEXT, "encoder_layers": 1, "decoder_layers": 1, "dim": 64}
        | {"heads": 2, "mlp_dim": 256, "num_tokens": 64, "num_codes": 512},
        4,
    ),
    "width_512": (
        {**SMALL_TEXT, "encoder_layers": 1, "decoder_layers": 4, "dim": 512}
        | {"heads": 8, "mlp_dim": 2048, "num_tokens": 256},
        16,
    ),
    "width_1024": ({"encoder_layers": 1, "decoder_layers": 2}, 2),
    "parti_350m": ({}, 32),
}


def fixed_batch(config, batch):
    """Returns text ids, padded by half, and image ids: NumPy int32."""
    rng = np.random.default_rng(0)
    text = rng.integers(4, config.text_vocab_size, (batch, config.text_length))
    text[:, 0], text[:, config.text_length // 2 :] = 2, 0
    image = rng.integers(0, config.num_codes, (batch, config.num_tokens))
    return text.astype("int32"), image.astype("int32")


def keras_step(config, batch, dtype):
    """Returns a model and the function of one step of it, which returns the loss."""
    keras.utils.set_random_seed(0)
    model = Parti(config, dtype=dtype)
    # New blocks are identities: only other weights show that two models are one.
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        noise = rng.normal(0, 0.02, weight.shape).astype("float32")
        weight.assign(ops.convert_to_numpy(weight) + noise)
    model.compile(
        AdamW(1e-4, weight_decay=4.5e-2, global_clipnorm=4.0),
        loss=TokenCrossEntropy(),
        jit_compile=keras.backend.backend() == "jax",
    )
    text, image = fixed_batch(config, batch)
    inputs = {"text_ids": text, "image_ids": image}
    return model, lambda: float(model.train_on_batch(inputs, image))


def torch_step(config, batch, dtype, model):
    """The same in PyTorch, from the same weights."""
    import torch
    from parts.torch_parti import TorchParti

    peer = TorchParti(config)
    peer.load(model)
    optimizer = torch.optim.AdamW(peer.parameters(), 1e-4, weight_decay=4.5e-2)
    text, image = (torch.from_numpy(x).long() for x in fixed_batch(config, batch))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype != "float32")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = peer(text, image)
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), image.flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 4.0)
        optimizer.step()
        return float(loss.detach())

    return step


def product_limit(config, batch, dtype, rounds):
    """Returns GFLOP/s of the feed-forward layer's product alone, in Keras' backend."""
    short = "bfloat16" if dtype == "mixed_bfloat16" else "float32"
    x = ops.cast(ops.ones((batch * config.num_tokens, config.dim)), short)
    kernel = ops.cast(ops.ones((config.dim, config.mlp_dim)), short)

    if keras.backend.backend() == "jax":
        import jax

        product = jax.jit(ops.matmul)
        run = lambda: product(x, kernel).block_until_ready()  # noqa: E731
    else:
        run = lambda: ops.matmul(x, kernel)  # noqa: E731
    flops = 2 * x.shape[0] * config.dim * config.mlp_dim
    return flops / best_of(run, 5 * rounds, warm_ups=2) / 1e9


def compare(name, dtypes, rounds, peak, overrides):
    """Times the steps of a case; prints the arithmetic and a table."""
    fields, batch = CASES[name]
    backend = keras.backend.backend()
    has_torch = importlib.util.find_spec("torch") is not None
    if not has_torch:
        print("PyTorch is not installed: its rows are left out. pip install torch\n")
    configs = {
        words: Parti.preset_config(
            "parti_350m", **{**fields, **STILL, "attention_kernel": kernel, **overrides}
        )
        for words, kernel in (("dense", None), ("window", 11))
    }
    for words, config in configs.items():
        terms = parti_step_flops(config, batch)
        total = sum(terms.values())
        print(f"{name}, {words}: a step of {batch} x {config.num_tokens} ids asks for")
        for term, value in terms.items():
            print(f"  {term:28} {value / 1e9:10.1f} GFLOP {value / total:6.1%}")
        print(f"  {'together':28} {total / 1e9:10.1f} GFLOP\n")
    print("| framework | attention | precision | s/step | GFLOP/s | of the limit |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    seconds = {}

    def row(framework, words, dtype, step, limit):
        took = seconds[framework, words, dtype] = best_of(step, rounds, warm_ups=2)
        rate = sum(parti_step_flops(configs[words], batch).values()) / took / 1e9
        print(
            f"| {framework} | {words} | {dtype} | {took:.3f} | {rate:.0f} "
            f"| {rate / limit:.0%} |",
            flush=True,
        )

    for dtype in dtypes:
        limit = product_limit(configs["dense"], batch, dtype, rounds)
        for words, config in configs.items():
            model, step = keras_step(config, batch, dtype)
            peer = None
            if has_torch and words == "dense":
                peer = torch_step(config, batch, dtype, model)
                losses = step(), peer()
                if abs(losses[0] - losses[1]) > 0.02:
                    raise ValueError(f"Both must compute one loss. Received: {losses}")
            row(f"Keras, {backend}", words, dtype, step, limit)
            if peer:
                row("PyTorch", words, dtype, peer, limit)
            if peak:
                _utilisation(
                    config, batch, seconds[f"Keras, {backend}", words, dtype], peak
                )
    for (framework, words, dtype), took in seconds.items():
        peer = seconds.get(("PyTorch", "dense", dtype))
        if peer and framework != "PyTorch":
            print(f"{framework}, {words}, {dtype}: {peer / took:.2f} x PyTorch's speed")
    return {key: batch / took for key, took in seconds.items()}


def _utilisation(config, batch, seconds, peak):
    tera = sum(parti_step_flops(config, batch).values()) / 1e12
    print(
        f"\nModel FLOP utilisation: {tera:.2f} TFLOP / {seconds:.4f} s / {peak:.0f} "
        f"TFLOP/s = {tera / seconds / peak:.1%}; "
        f"{batch * config.num_tokens / seconds:,.0f} image tokens/s\n"
    )


def input_pipeline(tokens, vocabulary_file, rounds):
    """Times the batches of a token cache alone; prints pictures a second."""
    import tensorflow as tf

    from keras_parti import data
    from keras_parti.data.token_cache import read_manifest
    from keras_parti.text import Vocabulary, train_vocabulary
    from keras_parti.training.parti import batches

    with tempfile.TemporaryDirectory() as folder:
        if tokens is None:
            tokens, vocabulary_file = Path(folder, "cache"), Path(folder, "v.model")
            captions = [f"a {c} {n}" for c in ("red", "green") for n in "abcdefgh"]
            train_vocabulary(captions, vocabulary_file)
            examples = tf.data.Dataset.range(4000).map(
                lambda i: {
                    "image": tf.zeros((1, 1, 3)),
                    "captions": tf.gather(captions, [i % 16, (i + 1) % 16]),
                }
            )
            rng = np.random.default_rng(0)
            data.write_token_cache(
                tokens,
                "train",
                examples,
                lambda images: rng.integers(0, 8192, (len(images), 1024)),
                "none",
                8192,
                1024,
            )
        manifest = read_manifest(tokens)
        vocabulary = Vocabulary.from_file(vocabulary_file)
        dataset = iter(batches(tokens, "train", vocabulary, 64, seed=0))
        for _ in range(64):  # a first pass fills the memory
            next(dataset)
        seconds = (
            best_of(lambda: [next(dataset) for _ in range(16)], 4 * rounds, 2) / 16
        )
    print(
        f"\nInput pipeline alone, {manifest['num_tokens']} ids and a caption: "
        f"{64 / seconds:,.0f} pictures/s"
    )
    return 64 / seconds


def main(argv=None):
    """Prints the tables; returns pictures a second of each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="width_512")
    parser.add_argument(
        "--dtypes", nargs="+", default=["mixed_bfloat16", "float32"], metavar="DTYPE"
    )
    parser.add_argument("--rounds", type=int, default=5, help="steps; the best counts")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the accelerator")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the config, its value in JSON",
    )
    parser.add_argument("--input", action="store_true", help="the input pipeline")
    parser.add_argument("--tokens", type=Path, help="a token cache for it")
    parser.add_argument("--vocab", type=Path, help="its vocabulary")
    parser.add_argument("--quick", action="store_true", help="tiny, two rounds")
    args = parser.parse_args(argv)
    if args.quick:
        args.case, args.rounds = "tiny", 2
    overrides = {
        name: json.loads(value)
        for name, value in (pair.split("=") for pair in args.set)
    }
    rows = compare(args.case, args.dtypes, args.rounds, args.peak, overrides)
    if args.input:
        rate = input_pipeline(args.tokens, args.vocab, args.rounds)
        needed = max(rows.values())
        print(
            f"The fastest step above takes {needed:,.1f} pictures/s: the pipeline has "
            f"{rate / needed:,.0f} times that."
        )
    return rows


if __name__ == "__main__":
    main()
