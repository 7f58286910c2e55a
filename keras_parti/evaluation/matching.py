"""How well a CoCa tells which caption belongs to which picture, and what it chooses.

Two measures. Recall: among the pictures and first captions of a split, how often the
right one comes first or among five, both ways. Choice: of several pictures that Parti
draws for a prompt, is the one that CoCa ranks first of the right kind? That is judged
by another network, which finds the nearest true pictures (`evaluation.nearest`), beside
a random one of them, the one of the highest likelihood, and the best there is.
Intervals are over prompts; what a choice gains is compared prompt by prompt.

Hits among the nearest few are coarse: of prompts that are seldom drawn right, most
samples are equally wrong. So a fourth measure counts how far down the list the very
picture stands that the prompt is the caption of.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_parti.evaluation.control import found_by_chance, hits, interval
from keras_parti.evaluation.nearest import Index
from keras_parti.evaluation.pictures import Pictures
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.evaluation.samples import draw_samples
from keras_parti.metrics import recall
from keras_parti.models import CoCa
from keras_parti.models.choosing import same_texts, similarities
from keras_parti.sampling import NUM_SAMPLES
from keras_parti.text import Vocabulary

COUNTS = (1, 5)
MEASURES = {
    "name": "right name, among 5",
    "style": "right style, nearest",
    "both": "both",
}
PLACE = "place of the true picture"  # a geometric mean: 10 for 1 counts as 100 for 10
# Splits whose captions are prompts, all of them together.
PROMPTED = ("heldout_style", "heldout_tone")
CHOICES = {
    "random": "a random one",
    "likelihood": "by Parti's likelihood",
    "coca": "by CoCa",
    "oracle": "the best there is",
}


def evaluate_matching(
    coca: CoCa,
    vocabulary: Vocabulary,
    splits: dict[str, Pictures],
    out: str | os.PathLike,
    *,
    generate: Callable[..., dict[str, np.ndarray]] | None = None,
    features: str = "joined",
    num_samples: int = NUM_SAMPLES,
    guidance_scale: float = 1.0,
    num_queries: int = 100,
    model_name: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Measures recall and, where there is a Parti, choice; writes the figures.

    Args:
        coca: `CoCa`; a reranker is enough.
        vocabulary: `keras_parti.text.Vocabulary` of its text length.
        splits: dict of split name to `Pictures` of the model's size. Recall is measured
            on all but `train`; all of them are what samples are compared with.
        out: path of the folder to write: `results.json`, `table.md`, `samples/`.
        generate: callable as `TextToImage.generate` of a chain without reranker, or
            None for recall alone. Its `score` is the likelihood.
        features: a name of `evaluation.nearest.SPACES`.
        num_samples: int. Pictures drawn a prompt. They are kept under `out/samples`.
        guidance_scale: float.
        num_queries: int. Prompts at most, a random choice by `seed`.
        model_name: str that tells the Parti's weights apart.
        seed: int.

    Returns:
        The content of `results.json`: `recall` → split → figures, and `choice` →
        choice → measure → figures, as `choices` returns them.

    Raises:
        ValueError: where pictures are to be drawn and no split of prompts has any.
    """
    present = [splits[name] for name in PROMPTED if len(splits.get(name, ()))]
    if generate is not None and not present:
        raise ValueError(
            f"One of {', '.join(PROMPTED)} must be among the splits. "
            f"Received: {', '.join(splits)}"
        )
    results: dict[str, Any] = {"recall": {}, "choice": {}, "num_samples": num_samples}
    for name, pictures in splits.items():
        if name != "train" and len(pictures):
            scores = similarities(
                coca, pictures.images, vocabulary.encode(list(pictures.prompts))
            )
            results["recall"][name] = recalls(scores, same_texts(pictures.prompts))
    if generate is not None:
        gallery = Pictures.join(list(splits.values()))
        wanted = Pictures.join(present)
        order = np.random.default_rng(seed).permutation(len(wanted))
        wanted = wanted.take(order[:num_queries])
        images, likelihood = draw_samples(
            generate,
            wanted.prompts,
            Path(out) / "samples",
            num_samples=num_samples,
            guidance_scale=guidance_scale,
            seed=seed,
            model_name=model_name,
            label=", ".join(PROMPTED),
        )
        ranks = {
            "likelihood": likelihood,
            "coca": _ranked(coca, vocabulary, images, wanted.prompts),
        }
        right, places = judge(images, gallery, wanted, features)
        found = choices(right, places, ranks, seed)
        results["choice"] = {"queries": len(wanted), **found}
    write_report(out, results, _report(results))
    return results


def recalls(scores, right):
    """Returns recall both ways, beside that of a random order.

    Args:
        scores: float `(count, count)`, pictures by texts.
        right: bool `(count, count)`, symmetric: which texts are the picture's own or
            equal to it.
    """
    figures = {"queries": len(scores)}
    for count in COUNTS:
        figures[f"image_to_text@{count}"] = float(recall(scores, count, right))
        figures[f"text_to_image@{count}"] = float(recall(scores.T, count, right))
        by_chance = found_by_chance(right.sum(axis=1), len(scores), count)
        figures[f"chance@{count}"] = float(by_chance.mean())
    return figures


def judge(images, gallery, wanted, features):
    """Returns what is right of each sample, and how near the true picture is.

    Args:
        images: uint8 `(prompts, samples, height, width, 3)`.
        gallery: `Pictures`, which hold those wanted.
        wanted: `Pictures`, one a prompt.
        features: a name of `evaluation.nearest.SPACES`.

    Returns:
        A dict of measure to float `(prompts, samples)`, 1 right, 0 wrong; and int
        `(prompts, samples)`, the place of the wanted picture in the gallery, from 1.
    """
    prompts, samples = images.shape[:2]
    index = Index(gallery, (features,))
    at = {prompt: place for place, prompt in enumerate(gallery.prompts)}
    true = np.array([at[prompt] for prompt in wanted.prompts])
    right = {measure: np.zeros((prompts, samples)) for measure in MEASURES}
    places = np.zeros((prompts, samples), int)
    for row, own in enumerate(tqdm(images, "judging", unit="prompt", disable=None)):
        found = index.search(own)[features]
        repeated = np.repeat(row, samples)
        hit = hits(found, gallery, wanted.take(repeated))
        right["name"][row], right["style"][row] = hit["name@5"], hit["style"]
        places[row] = index.places(own, true[repeated])[features]
    right["both"] = right["name"] * right["style"]
    return right, places


def choices(right, places, ranks, seed=0):
    """Returns how right the chosen pictures of prompts are, for each choice.

    Args:
        right: dict of measure to float `(prompts, samples)`, 1 right, 0 wrong.
        places: int `(prompts, samples)`, from 1, the less the better.
        ranks: dict of choice to float `(prompts, samples)`, the highest is chosen.
        seed: int, of the intervals.

    Returns:
        A dict of choice to dict of measure to a dict of `value`, `low` and `high`, the
        95 % interval over prompts, and `gain`, a dict of the same three: the value
        beside that of "random" on the same prompts. "random" is the mean over all
        samples, "oracle" the best of them. Values of measures of `right` are shares of
        prompts, and gains differences; those of "place" are geometric means of places,
        and gains ratios, less than 1 where the choice is better.
    """
    figures = {"random": {}, **{name: {} for name in ranks}, "oracle": {}}
    for measure, values in {**right, "place": np.log(places)}.items():
        rows = np.arange(len(values))
        best = values.min(axis=1) if measure == "place" else values.max(axis=1)
        chosen = {"random": values.mean(axis=1), "oracle": best}
        chosen |= {name: values[rows, at.argmax(axis=1)] for name, at in ranks.items()}
        for name, hit in chosen.items():
            scale = np.exp if measure == "place" else float
            own = _with_interval(hit, seed, scale)
            own["gain"] = _with_interval(hit - chosen["random"], seed, scale)
            figures[name][measure] = own
    return figures


def _with_interval(values, seed, scale):
    found = (values.mean(), *interval(values, seed))
    return {
        key: float(scale(x))
        for key, x in zip(("value", "low", "high"), found, strict=True)
    }


def _ranked(coca, vocabulary, images, prompts):
    """Returns the cosines of the samples of each prompt with it."""
    texts = vocabulary.encode(list(prompts))
    scores = [
        similarities(coca, samples, text[None])[:, 0]
        for samples, text in zip(images, texts, strict=True)
    ]
    return np.stack(scores)


def _report(results):
    rows = [
        [
            f"{name} ({at['queries']})",
            *(
                f"{100 * at[f'{way}@{count}']:.1f}"
                for count in COUNTS
                for way in ("image_to_text", "text_to_image", "chance")
            ),
        ]
        for name, at in results["recall"].items()
    ]
    header = ["split"]
    for count in COUNTS:
        header += [f"picture → text @{count}, %", f"text → picture @{count}, %"]
        header += [f"chance @{count}, %"]
    parts = [markdown_table(header, rows)]
    if at := results["choice"]:
        header = [
            f"of {results['num_samples']} for {at['queries']} prompts",
            *(f"{words}, % (95 %)" for words in MEASURES.values()),
            f"{PLACE} (95 %)",
        ]
        rows = [
            [
                words,
                *(_percent(at[choice][measure]) for measure in MEASURES),
                _factor(at[choice]["place"], ".0f"),
            ]
            for choice, words in CHOICES.items()
        ]
        for choice in ("likelihood", "coca"):
            gain = {key: at[choice][key]["gain"] for key in (*MEASURES, "place")}
            rows.append(
                [
                    f"{CHOICES[choice]}, beside a random one",
                    *(_percent(gain[measure], "+") for measure in MEASURES),
                    "× " + _factor(gain["place"], ".2f"),
                ]
            )
        parts.append(markdown_table(header, rows))
    return "\n\n".join(parts)


def _percent(figures, sign=""):
    value, low, high = (100 * figures[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def _factor(figures, form):
    value, low, high = (f"{figures[key]:{form}}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
