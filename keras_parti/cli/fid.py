"""`keras-parti evaluate fid`: distances of drawn pictures from real ones."""

import functools

import numpy as np
from PIL import Image

from keras_parti import sampling
from keras_parti.cli.measure import Compiled
from keras_parti.cli.prompts import asked, scored_by
from keras_parti.evaluation.fid import (
    captions,
    collect,
    compare,
    feature_network,
    picture_statistics,
    write_comparison,
)
from keras_parti.evaluation.prompt_run import draw_prompts, read_records
from keras_parti.models import ViTVQGAN
from keras_parti.training.workdir import model_dir


def fid(args):
    """Computes statistics of both sides, and compares."""
    sources = [*(args.images or []), *args.against]
    network = None
    if args.images is None or not all(s.endswith(".npz") for s in sources):
        network = feature_network(args.features, args.weights, args.dtype)
    options = {"count": args.count, "seed": args.seed}
    crop = {"augment": "transformer" if args.crop == "near-centre" else None}
    coca, tokenizer, size = None, None, args.image_size or 256
    if args.tokenizer:
        tokenizer = Compiled(ViTVQGAN.load_dir(model_dir(args.tokenizer)))
        size = tokenizer.config.image_size
        if args.image_size not in (None, size):
            raise ValueError(
                f"--image-size must be {size}, that of the tokenizer, or left out. "
                f"Received: {args.image_size}"
            )
    of_real = functools.partial(collect, args.against, network, size, **options, **crop)
    if tokenizer:
        drawn = of_real("reconstructed", tokenizer)
    elif args.images:
        drawn = collect(args.images, network, size, "drawn", **options)
    else:
        drawn, coca = _draw(args, network, size, options)
    drawn.save(args.out / "drawn.npz")
    real = of_real("real")
    real.save(args.out / "real.npz")
    results = compare(real, drawn, args.seed)
    if coca is not None:
        results["coca_score"] = coca
    print(write_comparison(results, args.out))
    print(f"Wrote {args.out}")


def _draw(args, network, size, options):
    """Statistics of the best picture of each caption, drawn or there already.

    And the mean of what the model's CoCa says of these pictures; None without one.
    """
    prompts = []
    for source in args.against:
        prompts += captions(source, **options)
    prompts = [prompt._replace(index=i) for i, prompt in enumerate(prompts)]
    chosen = {name: getattr(args, name) for name in sampling.DEFAULTS}
    with asked(args) as (client, model, _):
        score = scored_by(client)
        draw_prompts(
            lambda texts, seed: client.generate(texts, 1, seed=seed, **chosen),
            prompts,
            args.out,
            num_samples=args.num_samples,
            seed=args.seed,
            score=score,
            model=model,
            options=chosen,
        )
    best = {}
    for record in read_records(args.out):
        if args.seed <= record["seed"] < args.seed + args.num_samples:
            kept = best.setdefault(record["index"], record)
            if record["score"] > kept["score"]:
                best[record["index"]] = record

    def pictures():
        for record in best.values():
            with Image.open(args.out / "pictures" / record["file"]) as picture:
                if picture.size != (size, size):
                    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
                yield record["file"], np.asarray(picture.convert("RGB"))

    found = picture_statistics(pictures(), network, len(best), "drawn")
    mean = float(np.mean([record["score"] for record in best.values()]))
    return found, mean if score == "coca" else None
