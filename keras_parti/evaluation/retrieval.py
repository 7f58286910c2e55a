"""Whether the text steers the picture: generated pictures find their own kind.

The picture of a prompt is looked for among all true pictures of the set. The nearest
should be of the prompt's name, style and skin tone. Four figures stand beside each: the
ceiling, what the tokenizer's reconstruction of the true picture reaches; chance, what a
random order of the set would; shuffled, what the picture of another prompt reaches; and
the 95 % interval over prompts. The papers measure text control by people and by CLIP
score: this measure is ours, for sets whose captions name what is to be seen.

Read skin tones in the thumbnail's table: among the
10,947 pictures of `emoji_captions/full`, true ones blurred to 20 x 20 pixels find their
tone for 100 % by the thumbnail, 72 % by the joined features, 46 % by the ImageNet
network, which was trained to ignore colour (100 pictures of held-out tones).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_parti.evaluation.control import MEASURES, measure, weighted_hits
from keras_parti.evaluation.gallery import enlarged, strip
from keras_parti.evaluation.nearest import SPACES, Index
from keras_parti.evaluation.pictures import Pictures
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.evaluation.samples import best_of_weights, draw_samples
from keras_parti.pixels import to_floats, to_uint8
from keras_parti.sampling import NUM_SAMPLES
from keras_parti.typing import Tensor

# Words of the tables.
SETS = {
    "train": "training captions",
    "heldout_style": "held-out name and style",
    "heldout_tone": "held-out skin tone",
    "synonyms": "synonyms",
}
TITLES = {
    "joined": "ImageNet features, joined by 0.7 of a 16 x 16 thumbnail",
    "image": "ImageNet features",
    "pixels": "a 16 x 16 thumbnail",
}
STRIP_ROWS = 8  # prompts of which pictures are shown
WITH_INTERVAL = ("value", "low", "high")
FIGURES = {
    "ceiling": "ceiling",
    "of_ceiling": "% of the ceiling",
    "shuffled": "shuffled",
    "chance": "chance",
}
LEGEND = (
    "Right is a drawn picture whose *nearest* true one, or one *among* the *5* "
    "nearest, shows what the prompt names; behind it the 95 % interval over prompts. "
    "*Ceiling*: the same of the true picture itself, encoded and decoded by the "
    "tokenizer. *Shuffled*: of pictures drawn for other prompts of the set. *Chance*: "
    "of any picture at all. In the comparison, *best of* counts the pictures of a "
    "prompt of which the one of the highest score is taken."
)
COCA = {
    "value": "chosen pictures",
    "ceiling": "true pictures, rebuilt",
    "shuffled": "chosen, with other prompts",
}
# Columns of the comparison of guidance scales: all others are in `results.json`.
COMPARED = (
    ("train", "name@1"),
    ("heldout_style", "name@5"),
    ("heldout_style", "style"),
    ("heldout_tone", "tone"),
)


def evaluate_retrieval(
    generate: Callable[..., dict[str, np.ndarray]],
    reconstruct: Callable[[Tensor], Tensor] | None,
    splits: dict[str, Pictures],
    out: str | os.PathLike,
    *,
    features: Sequence[str] = ("joined", "image", "pixels"),
    num_queries: int = 100,
    num_samples: int = NUM_SAMPLES,
    guidance_scale: float = 1.5,
    guidance_scales: Sequence[float] = (1.0, 1.5, 3.0),
    best_of: Sequence[int] = (1, 4, 16),
    num_guidance_queries: int = 25,
    score: Callable[[np.ndarray, Sequence[str]], np.ndarray] | None = None,
    model_name: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Measures text control and writes the figures, tables and pictures of it.

    Prompts are the canonical captions of pictures of `train`, `heldout_style` and
    `heldout_tone`; those of `synonyms` are captions of `train` pictures that call them
    by another name, in the same wording. Pictures are drawn once a prompt and guidance
    scale and kept under `out/samples`: after a kill the same call goes on where it was.

    Args:
        generate: callable as `TextToImage.generate`: `(prompts, num_samples=, keep=,
            guidance_scale=, seed=)` to a dict of `images`, uint8 `(prompts, keep,
            height, width, 3)`, and `score`, `(prompts, keep)`. Any order will do.
        reconstruct: callable of float images in [0, 1] to the tokenizer's
            reconstructions of them, such as `ViTVQGAN.reconstruct`.
        splits: dict of split name to `Pictures`. All of them are the gallery.
        out: path of the folder to write: `results.json`, `table.md`, a PNG strip for
            each set of prompts, `guidance.png`, `samples/`.
        features: names of `SPACES`, the main one first. All but "pixels" need the
            package of the extra `evaluation`.
        num_queries: int. Prompts of a set at most, a random choice by `seed`.
        num_samples: int. Pictures drawn a prompt; the best by score is shown.
        guidance_scale: float. Of the main figures.
        guidance_scales: floats to compare; empty for no comparison.
        best_of: ints up to `num_samples`, to compare.
        num_guidance_queries: int. Prompts of a set in this comparison.
        score: callable of uint8 pictures and a list of their prompts to float
            `(pictures,)`, such as `Client.score`; None where the model has no CoCa.
        model_name: str that tells the weights apart, such as a path and version: kept
            pictures are used again only under the same name.
        seed: int.

    Returns:
        The content of `results.json`: `features` → name → `sets` → set → measure →
        `value`, `low`, `high`, `ceiling`, `of_ceiling`, `shuffled`, `chance`, and
        `guidance`, a list of rows; and where there is a `score`, `coca_score` → set →
        `queries`, `value`, `ceiling`, `shuffled`.

    Raises:
        ValueError: unknown features, no `train` split, `best_of` above `num_samples`.
        FileNotFoundError: the package of the extra `evaluation` is missing.
    """
    unknown = [name for name in features if name not in SPACES]
    if unknown or not features:
        raise ValueError(
            f"`features` must be some of {', '.join(SPACES)}. Received: {features}"
        )
    if "train" not in splits:
        raise ValueError(f"`splits` must have `train`. Received: {list(splits)}")
    for count in best_of:
        best_of_weights(num_samples, count)
    out = Path(out)
    gallery = Pictures.join(list(splits.values()))
    index = Index(gallery, features)
    queries = choose_queries(splits, num_queries, seed)

    def draw(pictures, scale, label):
        return draw_samples(
            generate,
            pictures.prompts,
            out / "samples",
            num_samples=num_samples,
            guidance_scale=scale,
            seed=seed,
            model_name=model_name,
            label=f"{label}, guidance {scale:g}",
        )

    results: dict[str, Any] = {
        "model": model_name,
        "gallery": {name: len(pictures) for name, pictures in splits.items()},
        "num_samples": num_samples,
        "guidance_scale": guidance_scale,
        "seed": seed,
        "features": {name: {"sets": {}, "guidance": []} for name in features},
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, pictures in queries.items():
        images, _ = draw(pictures, guidance_scale, name)
        rebuilt = _reconstruct(reconstruct, pictures.images)
        found, ceiling = index.search(images[:, 0]), index.search(rebuilt)
        if score is not None:
            scored = coca_scores(score, images[:, 0], rebuilt, pictures.prompts)
            results.setdefault("coca_score", {})[name] = scored
        for space in features:
            results["features"][space]["sets"][name] = measure(
                found[space], ceiling[space], gallery, pictures, seed
            )
        nearest = gallery.images[found[features[0]][:, 0]]
        columns = [pictures.images, rebuilt, images[:, 0], nearest]
        headings = ["true", "tokenizer", f"best of {num_samples}", "nearest in the set"]
        _save_strip(out / f"{name}.png", pictures, columns, headings)

    asked = {
        name: pictures.take(np.arange(min(num_guidance_queries, len(pictures))))
        for name, pictures in queries.items()
        if name != "synonyms"
    }
    shown = []  # the best pictures of the `train` prompts, at each scale
    for scale in guidance_scales:
        for name, pictures in asked.items():
            images, scores = draw(pictures, scale, name)
            if name == "train":
                shown.append(images[:, 0])
            found = index.search(images.reshape(-1, *images.shape[2:]))
            for count in best_of:
                weights = best_of_weights(num_samples, count)
                row = {
                    "guidance_scale": scale,
                    "best_of": count,
                    "set": name,
                    "queries": len(pictures),
                    "score": float((scores @ weights).mean()),
                }
                for space in features:
                    values = weighted_hits(found[space], gallery, pictures, weights)
                    results["features"][space]["guidance"].append(row | values)
    if shown:
        headings = ["true", *(f"guidance {scale:g}" for scale in guidance_scales)]
        columns = [asked["train"].images, *shown]
        _save_strip(out / "guidance.png", asked["train"], columns, headings)
    write_report(out, results, _report(results))
    return results


def choose_queries(splits, num_queries, seed):
    """Chooses the pictures whose captions are asked for.

    Args:
        splits: dict of split name to `Pictures`.
        num_queries: int. Pictures of a set at most.
        seed: int.

    Returns:
        A dict of set name to `Pictures`, those of no picture left out.
    """
    queries = {}
    for name in ("train", "heldout_style", "heldout_tone"):
        if len(splits.get(name, ())):
            pictures = splits[name]
            order = np.random.default_rng(seed).permutation(len(pictures))
            queries[name] = pictures.take(order[:num_queries])
    train = splits["train"]
    order = np.random.default_rng(seed).permutation(len(train))
    renamed = np.array([i for i in order if train.synonyms[i]][:num_queries], int)
    if len(renamed):
        # The first has the canonical wording: only the name is another.
        prompts = [train.synonyms[i][0] for i in renamed]
        queries["synonyms"] = train.take(renamed, prompts)
    return queries


def coca_scores(score, drawn, rebuilt, prompts):
    """Means of what a CoCa says of pictures and prompts, over a set of prompts.

    Args:
        score: callable, see `evaluate_retrieval`.
        drawn: uint8 `(prompts, height, width, 3)`, the chosen pictures.
        rebuilt: the tokenizer's reconstructions of the true ones.
        prompts: sequence of str.

    Returns:
        A dict of floats: `queries`, `value` of the chosen pictures, `ceiling` of the
        true ones, `shuffled` of the chosen ones with the next prompt of the set.
    """
    prompts = [str(prompt) for prompt in prompts]
    asked = {
        "value": (drawn, prompts),
        "ceiling": (rebuilt, prompts),
        "shuffled": (drawn, prompts[1:] + prompts[:1]),
    }
    means = {key: float(np.mean(score(*pair))) for key, pair in asked.items()}
    return {"queries": len(prompts), **means}


def _reconstruct(reconstruct, images):
    batches = [
        np.asarray(reconstruct(to_floats(images[start : start + 32])))
        for start in range(0, len(images), 32)
    ]
    return to_uint8(np.clip(np.concatenate(batches), 0.0, 1.0))


def _save_strip(path, pictures, columns, headings):
    size = 2 * pictures.images.shape[2]
    rows = [
        # A model may draw larger pictures than those of the set.
        (str(prompt), np.stack([np.asarray(enlarged(c[i], size)) for c in columns]))
        for i, prompt in enumerate(pictures.prompts[:STRIP_ROWS])
    ]
    strip(rows, headings=headings, size=size).save(path)


def _report(results):
    total = sum(results["gallery"].values())
    parts = [
        f"The best of {results['num_samples']} pictures a prompt, guidance "
        f"{results['guidance_scale']:g}, looked for among {total:,} pictures.",
        LEGEND,
    ]
    for number, (space, figures) in enumerate(results["features"].items()):
        parts.append(f"### Distance: {TITLES[space]}")
        rows = [
            [
                f"{SETS[name]} ({at['queries']})",
                MEASURES[key],
                "{} ({}–{})".format(*(_percent(at[x]) for x in WITH_INTERVAL)),
                *(_percent(at[figure]) for figure in FIGURES),
            ]
            for name, measures in figures["sets"].items()
            for key, at in measures.items()
        ]
        header = ["prompts", "measure", "% (95 %)", *FIGURES.values()]
        parts.append(markdown_table(header, rows))
        if number == 0 and figures["guidance"]:
            parts.append(_guidance_table(figures["guidance"]))
    if "coca_score" in results:
        parts.append(_coca_table(results["coca_score"]))
    return "\n\n".join(parts)


def _coca_table(sets):
    rows = [
        [f"{SETS[name]} ({at['queries']})", *(f"{at[key]:.3f}" for key in COCA)]
        for name, at in sets.items()
    ]
    title = "### How well pictures fit their prompts: the model's own CoCa, mean cosine"
    return f"{title}\n\n{markdown_table(['prompts', *COCA.values()], rows)}"


def _guidance_table(rows):
    cells = {}  # of each (guidance scale, best of), by column
    for row in rows:
        line = cells.setdefault((row["guidance_scale"], row["best_of"]), {})
        for name, key in COMPARED:
            if row["set"] == name and key in row:
                column = f"{SETS[name]} ({row['queries']}): {MEASURES[key]}"
                line[column] = _percent(row[key])
    columns = list(next(iter(cells.values())))
    return markdown_table(
        ["guidance", "best of", *columns],
        [
            [f"{scale:g}", str(count), *(line[column] for column in columns)]
            for (scale, count), line in cells.items()
        ],
    )


def _percent(value):
    return "–" if value is None else f"{100 * value:.1f}"
