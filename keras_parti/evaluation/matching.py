"""How well a CoCa tells which caption belongs to which picture, and what it chooses.

Two measures. Recall: among the pictures and first captions of a split, how often the
right one comes first or among five, both ways. Choice: of several pictures that Parti
draws for a prompt, is the one that CoCa ranks first of the right kind? That is judged
by another network, which finds the nearest true pictures (`evaluation.nearest`), beside
a random one of them, the one of the highest likelihood, and the best there is.
Intervals are over prompts; what a choice gains is compared prompt by prompt.
"""

from pathlib import Path

import numpy as np

from keras_parti.evaluation.control import hits, interval
from keras_parti.evaluation.nearest import Index
from keras_parti.evaluation.pictures import Pictures
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.evaluation.samples import draw_samples
from keras_parti.metrics import recall
from keras_parti.models.choosing import similarities

COUNTS = (1, 5)
MEASURES = {
    "name": "right name, among 5",
    "style": "right style, nearest",
    "both": "both",
}
CHOICES = {
    "random": "a random one",
    "likelihood": "by Parti's likelihood",
    "coca": "by CoCa",
    "oracle": "the best there is",
}


def evaluate_matching(
    coca,
    vocabulary,
    splits,
    out,
    *,
    generate=None,
    sets=("heldout_style",),
    features="joined",
    num_samples=16,
    guidance_scale=1.0,
    num_queries=100,
    model_name="",
    seed=0,
):
    """Measures recall and, where there is a Parti, choice; writes the figures.

    Args:
        coca: `CoCa`; a reranker is enough.
        vocabulary: `keras_parti.text.Vocabulary` of its text length.
        splits: dict of split name to `Pictures` of the model's size. Recall is measured
            on all but `train`; all of them are what samples are compared with.
        out: path of the folder to write: `results.json`, `table.md`, `samples/`.
        generate: callable as `TextToImage.generate` of a chain without reranker, or
            None for recall alone. Its `score` is the likelihood.
        sets: names of splits whose captions are prompts.
        features: a name of `evaluation.nearest.SPACES`.
        num_samples: int. Pictures drawn a prompt. They are kept under `out/samples`.
        guidance_scale: float.
        num_queries: int. Prompts of a set at most, a random choice by `seed`.
        model_name: str that tells the Parti's weights apart.
        seed: int.

    Returns:
        The content of `results.json`: `recall` → split → figures, and `choice` → set →
        choice → measure → figures, as `choices` returns them.

    Raises:
        ValueError: where pictures are to be drawn and one of `sets` is no split.
    """
    missing = [name for name in sets if name not in splits]
    if generate is not None and missing:
        raise ValueError(
            f"`sets` must be splits of the data, {', '.join(splits)}. "
            f"Received: sets={sets}"
        )
    results = {"recall": {}, "choice": {}, "num_samples": num_samples}
    for name, pictures in splits.items():
        if name != "train" and len(pictures):
            scores = similarities(
                coca, pictures.images, vocabulary.encode(list(pictures.prompts))
            )
            results["recall"][name] = recalls(scores)
    if generate is not None:
        gallery = Pictures.join(list(splits.values()))
        index = Index(gallery, (features,))
        for name in sets:
            order = np.random.default_rng(seed).permutation(len(splits[name]))
            wanted = splits[name].take(order[:num_queries])
            images, likelihood = draw_samples(
                generate,
                wanted.prompts,
                Path(out) / "samples",
                num_samples=num_samples,
                guidance_scale=guidance_scale,
                seed=seed,
                model_name=model_name,
                label=name,
            )
            found = index.search(images.reshape(-1, *images.shape[2:]))[features]
            right = _right(found, gallery, wanted, num_samples)
            ranks = {
                "likelihood": likelihood,
                "coca": _ranked(coca, vocabulary, images, wanted.prompts),
            }
            results["choice"][name] = {
                "queries": len(wanted),
                **choices(right, ranks, seed),
            }
    write_report(out, results, _report(results))
    return results


def recalls(scores):
    """Returns recall both ways, beside that of a random order.

    Args:
        scores: float `(count, count)`, pictures by texts; the diagonal is right.
    """
    figures = {"queries": len(scores)}
    for count in COUNTS:
        figures[f"image_to_text@{count}"] = float(recall(scores, count))
        figures[f"text_to_image@{count}"] = float(recall(scores.T, count))
        figures[f"chance@{count}"] = min(1.0, count / len(scores))
    return figures


def choices(right, ranks, seed=0):
    """Returns the share of prompts whose chosen picture is right, for each choice.

    Args:
        right: dict of measure to float `(prompts, samples)`, 1 right, 0 wrong.
        ranks: dict of choice to float `(prompts, samples)`, the highest is chosen.
        seed: int, of the intervals.

    Returns:
        A dict of choice to dict of measure to a dict of `value`, `low` and `high`, the
        95 % interval over prompts, and `gain`, a dict of the same three: the value
        without that of "random" on the same prompts. "random" is the mean over all
        samples, "oracle" the share of prompts with any that is right.
    """
    figures = {"random": {}, **{name: {} for name in ranks}, "oracle": {}}
    for measure, values in right.items():
        rows = np.arange(len(values))
        chosen = {"random": values.mean(axis=1), "oracle": values.max(axis=1)}
        chosen |= {name: values[rows, at.argmax(axis=1)] for name, at in ranks.items()}
        for name, hit in chosen.items():
            gain = _with_interval(hit - chosen["random"], seed)
            figures[name][measure] = {**_with_interval(hit, seed), "gain": gain}
    return figures


def _with_interval(values, seed):
    low, high = interval(values, seed)
    return {"value": float(values.mean()), "low": low, "high": high}


def _right(found, gallery, wanted, num_samples):
    """Which samples are right: name among the five nearest, style of the nearest."""
    repeated = wanted.take(np.repeat(np.arange(len(wanted)), num_samples))
    at = hits(found, gallery, repeated)
    right = {"name": at["name@5"], "style": at["style"]}
    right["both"] = right["name"] * right["style"]
    return {key: values.reshape(-1, num_samples) for key, values in right.items()}


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
    for name, at in results["choice"].items():
        header = [
            f"of {results['num_samples']} for {at['queries']} prompts of {name}",
            *(f"{words}, % (95 %)" for words in MEASURES.values()),
        ]
        rows = [
            [words, *(_percent(at[choice][measure]) for measure in MEASURES)]
            for choice, words in CHOICES.items()
        ]
        gains = [_percent(at["coca"][measure]["gain"], "+") for measure in MEASURES]
        rows.append(["by CoCa, above a random one", *gains])
        parts.append(markdown_table(header, rows))
    return "\n\n".join(parts)


def _percent(figures, sign=""):
    value, low, high = (100 * figures[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"
