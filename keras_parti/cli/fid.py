"""`keras-parti evaluate fid`: distances of drawn pictures from real ones."""

import numpy as np
from PIL import Image

from keras_parti import sampling
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


def fid(args):
    """Computes statistics of both sides, and compares."""
    sources = [*(args.images or []), *args.against]
    network = None
    if args.images is None or not all(s.endswith(".npz") for s in sources):
        network = feature_network(args.features, args.weights, args.dtype)
    options = {"count": args.count, "seed": args.seed}
    coca = None
    if args.images:
        drawn = collect(args.images, network, args.image_size, "drawn", **options)
    else:
        drawn, coca = _draw(args, network, options)
    drawn.save(args.out / "drawn.npz")
    crop = "transformer" if args.crop == "near-centre" else None
    real = collect(
        args.against, network, args.image_size, "real", augment=crop, **options
    )
    real.save(args.out / "real.npz")
    results = compare(real, drawn, args.seed)
    if coca is not None:
        results["coca_score"] = coca
    print(write_comparison(results, args.out))
    print(f"Wrote {args.out}")


def _draw(args, network, options):
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
                size = (args.image_size, args.image_size)
                if picture.size != size:
                    picture = picture.resize(size, Image.Resampling.BICUBIC)
                yield record["file"], np.asarray(picture.convert("RGB"))

    found = picture_statistics(pictures(), network, len(best), "drawn")
    mean = float(np.mean([record["score"] for record in best.values()]))
    return found, mean if score == "coca" else None
