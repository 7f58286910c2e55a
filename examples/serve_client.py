"""Asks a server for pictures: one at a time, the best of many, and many at once.

    python examples/serve_client.py --quick
    python examples/serve_client.py --server localhost:8500 --name emoji --out pictures

In full beside a server that another terminal started with `keras-parti serve
saved_models/emoji`, or `tensorflow_model_server`; with `--quick` it has one of its own,
of an untrained chain.

Cost: 15 s on two cores.
Measured: a picture in 0.9 s, 16 samples of a prompt in 3.8 s (`benchmarks/serving.py`).

The same as a command: `keras-parti generate`.
"""

import argparse
import asyncio
import contextlib
from pathlib import Path

from PIL import Image

from keras_parti.evaluation.gallery import grid
from keras_parti.serving import AsyncClient, Client

PROMPTS = [f"red apple in {style} style" for style in ("google", "twitter", "fluent")]


def draw(client, folder, seed):
    """One picture for each prompt; then of one prompt the best 4 of 16."""
    drawn = client.generate(PROMPTS, num_samples=1, guidance_scale=3.0, seed=seed)
    grid(drawn["images"][:, 0], captions=PROMPTS).save(folder / "apples.png")
    best = client.generate(PROMPTS[:1], seed=seed)
    grid(best["images"][0], captions=[f"{s:.2f}" for s in best["score"][0]]).save(
        folder / "best.png"
    )
    return drawn["images"][:, 0]  # uint8 (prompts, height, width, 3)


def there_and_back(client, images, folder):
    """Pictures as the model's ids, and the ids as pictures."""
    ids = client.encode(images)  # int32 (prompts, length)
    Image.fromarray(client.decode(ids)[0]).save(folder / "decoded.png")
    return ids


async def draw_at_once(address, name, count):
    """Many requests together, as a web server would have; each awaits its own."""
    async with AsyncClient(address, name, best=()) as client:
        tasks = [client.generate(PROMPTS[:1], 1, seed=seed) for seed in range(count)]
        return await asyncio.gather(*tasks)


def serve_tiny(folder):
    """A server of a tiny untrained chain, for `--quick`."""
    import quick

    from keras_parti.models import TextToImage
    from keras_parti.serving.export import export
    from keras_parti.serving.server import Server

    chain = TextToImage.load(quick.chain(folder / "chain"))
    export(chain, folder / "saved_models" / "tiny", num_samples=16, keep=4)
    return Server(folder / "saved_models" / "tiny", port=0)


def main(argv=None):
    """Runs the example; returns the folder of the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500", help="HOST:PORT")
    parser.add_argument("--name", default="emoji", help="the model's name there")
    parser.add_argument("--out", type=Path, default="pictures", help="their folder")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture")
    parser.add_argument("--quick", action="store_true", help="tiny, in half a minute")
    args = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        if args.quick:
            args.out = Path("runs/quick/pictures")
            server = stack.enter_context(serve_tiny(Path("runs/quick/served")))
            args.server, args.name = server.address, server.name
        args.out.mkdir(parents=True, exist_ok=True)
        client = stack.enter_context(Client(args.server, args.name))
        try:
            print("Versions:", client.status(), "Signatures:", client.signatures())
            images = draw(client, args.out, args.seed)
            ids = there_and_back(client, images, args.out)
            drawn = asyncio.run(draw_at_once(args.server, args.name, 8))
        except (ValueError, OSError) as error:  # a wrong request; a server that is not
            raise SystemExit(f"{type(error).__name__}: {error}") from error
    print(f"{len(images)} pictures of {ids.shape[1]} ids, then {len(drawn)} at once.")
    print(f"They are in {args.out}.")
    return args.out


if __name__ == "__main__":
    main()
