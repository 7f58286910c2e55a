"""Exports a chain as a SavedModel, serves it over gRPC and calls it.

    python examples/export_and_call.py --quick
    python examples/export_and_call.py --chain runs/parti/chain --out saved_models/mine

In full after examples/train_parti.py; with `--quick` the chain is untrained. What is
exported is served by TensorFlow Serving just as well.

Cost: some minutes on two cores, most of them for the tracing of the signatures and the
first pictures.
Measured: the pictures are those of the chain in Python, to the bit.

The same as commands: `keras-parti export`, `keras-parti serve`, `keras-parti generate`.
"""

import argparse
from pathlib import Path

import keras

from keras_parti.evaluation import grid
from keras_parti.models import TextToImage
from keras_parti.serving.client import Client
from keras_parti.serving.export import export
from keras_parti.serving.server import Server

PROMPTS = [f"red apple in {style} style" for style in ("google", "twitter", "fluent")]


def main(argv=None):
    """Runs the example; returns the path of the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chain", default="runs/parti/chain", help="folder of a chain")
    parser.add_argument("--out", default="saved_models/mine", help="the model's folder")
    parser.add_argument("--num-samples", type=int, default=16, help="for a prompt")
    parser.add_argument("--keep", type=int, default=4, help="the best of these")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture")
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(args.seed)
    if args.quick:
        import quick

        args.chain = quick.chain("runs/quick/chain")
        args.out = "runs/quick/saved_models/tiny"

    version = export(
        TextToImage.load(args.chain), args.out, args.num_samples, args.keep
    )
    with (
        Server(args.out, port=0) as server,
        Client(server.address, server.name) as client,
    ):
        drawn = client.generate(PROMPTS, args.num_samples, args.keep, seed=args.seed)
    images = drawn["images"]  # (prompts, keep, height, width, 3)
    captions = [prompt for prompt in PROMPTS for _ in range(args.keep)]
    picture = Path(args.out) / "apples.png"
    page = grid(images.reshape(-1, *images.shape[2:]), args.keep, captions)
    page.save(picture)
    print(f"Exported {version}, served and called it: {picture}.")
    print(f"Next: keras-parti serve {args.out}")
    return picture


if __name__ == "__main__":
    main()
