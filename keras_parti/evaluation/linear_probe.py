"""What a VIM has learned without labels: a linear classifier on its frozen features.

Each block's features, the mean over the ids' positions of its output, go through one
softmax layer. Beside them stand the raw pixels and the counts of the picture's ids
through such a layer, and the most frequent class.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from keras_parti.compiled import compiled
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.pixels import to_floats, to_uint8

if TYPE_CHECKING:
    from keras_parti.models import VIM, ViTVQGAN


PENALTIES = (1e-3, 1e-2, 1e-1)
FLAT = 3e-5  # the largest slope at which a fit is done


def evaluate_linear_probe(
    vim: "VIM",
    train: dict[str, Any],
    test: dict[str, Any],
    out: str | os.PathLike,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Measures the features of every block and writes the figures.

    Args:
        vim: `VIM`, trained without labels.
        train: dict of `images`, uint8 `(n, height, width, 3)`, their `ids`, int32
            `(n, num_tokens)`, and `labels`, n strings or integers.
        test: as `train`; of classes that `train` has.
        out: path of the folder to write: `results.json` and `table.md`.
        batch_size: int. Pictures at a time.

    Returns:
        The content of `results.json`: `train`, `test`, numbers of pictures;
        `classes`; `middle_block`, the one the paper would take; `chance`; and
        `accuracy`, from `pixels`, `codes` and `block 0`, `block 1`, ... to `value`,
        `low`, `high` (the 95 % interval over test pictures) and `penalty`.

    Raises:
        ValueError: where a class of `test` is not in `train`, or there is only one.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), sections 4.2 and 5.3
    """
    classes, labels = np.unique(train["labels"], return_inverse=True)
    unknown = sorted(set(np.unique(test["labels"])) - set(classes))
    if unknown or len(classes) < 2:
        raise ValueError(
            "`train` must have two classes or more, and all of `test`. Received: "
            f"{len(classes)} in `train`, besides in `test`: {unknown}"
        )
    test_labels = np.searchsorted(classes, test["labels"])
    features, test_features = (
        _features(vim, split, batch_size) for split in (train, test)
    )
    accuracy = {}
    for name in tqdm(features, desc="probes", disable=None):
        right, penalty = probe(
            features[name], labels, test_features[name], test_labels, len(classes)
        )
        low, high = wilson(right)
        accuracy[name] = {
            "value": float(right.mean()),
            "low": low,
            "high": high,
            "penalty": penalty,
        }
    frequent = np.bincount(labels).argmax()
    results = {
        "train": len(labels),
        "test": len(test_labels),
        "classes": len(classes),
        "middle_block": vim.config.middle_block,
        "chance": float((test_labels == frequent).mean()),
        "accuracy": accuracy,
    }
    write_report(out, results, _report(results))
    return results


def read_labelled(
    tokenizer: "ViTVQGAN",
    name_or_dir: str | os.PathLike,
    split: str,
    feature: str,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Reads a split of a picture set as `evaluate_linear_probe` takes it.

    Args:
        tokenizer: `ViTVQGAN`. Pictures are resized to its size.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        split: str.
        feature: str. What tells a picture's class, such as `name`.
        batch_size: int. Pictures at a time.

    Returns:
        A dict of `images`, uint8 `(n, height, width, 3)`; `ids`, int32 `(n,
        num_tokens)`; and `labels`, n strings.

    Raises:
        ValueError: where a picture has no such feature.
    """
    from keras_parti import data  # needs TensorFlow

    encode = compiled(lambda x: {"ids": tokenizer.encode(x)}, tokenizer)
    columns: dict[str, list] = {"images": [], "ids": [], "labels": []}
    size = tokenizer.config.image_size
    for batch in data.load(name_or_dir, split, batch_size, image_size=size):
        images = batch["image"].numpy()
        texts = batch[feature].numpy() if feature in batch else [b""]
        labels = [text.decode() for text in texts]
        if "" in labels:
            raise ValueError(f"Not all pictures of {name_or_dir} have a {feature}.")
        columns["images"].append(to_uint8(images))
        columns["ids"].append(encode(images)["ids"])
        columns["labels"].append(labels)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def probe(features, labels, test_features, test_labels, num_classes):
    """Fits a softmax layer to features and asks it for the classes of others.

    The penalty is the one of `PENALTIES` that does best on each fifth example after
    fitting the others; with it all are fitted.

    Args:
        features: float `(n, dim)`.
        labels: int `(n,)` in `[0, num_classes)`.
        test_features: float `(m, dim)`.
        test_labels: int `(m,)`.
        num_classes: int.

    Returns:
        bool `(m,)`, where the likeliest class is the right one, and the penalty.
    """
    held_out = np.arange(len(labels)) % 5 == 4

    def right(fitted, asked, penalty):
        layer = fit_softmax(*fitted, num_classes, penalty)
        return layer(asked[0]).argmax(axis=1) == asked[1]

    examples = features, labels
    fifths = [[x[rows] for x in examples] for rows in (~held_out, held_out)]
    best = max(PENALTIES, key=lambda penalty: right(*fifths, penalty).mean())
    return right(examples, (test_features, test_labels), best), best


def fit_softmax(features, labels, num_classes, penalty, steps=500):
    """Fits one softmax layer to standardised features by accelerated gradients.

    Minimises the mean cross-entropy plus penalty / 2 times the squared weights; the
    problem is convex, the steps (Nesterov's) are of the length that its curvature
    allows, and nothing is drawn: the same features give the same layer.

    Args:
        features: float `(n, dim)`.
        labels: int `(n,)` in `[0, num_classes)`.
        num_classes: int.
        penalty: float, positive.
        steps: int. At most so many.

    Returns:
        A function from features `(m, dim)` to logits `(m, num_classes)`.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6 * scale.max(initial=0.0), scale, np.inf)

    def inputs(features):
        x = (features - mean) / scale
        return np.concatenate([x, np.ones_like(x[:, :1])], axis=1, dtype="float32")

    x, target = inputs(features), np.eye(num_classes, dtype="float32")[labels]
    penalties = np.full((x.shape[1], 1), penalty, "float32")
    penalties[-1] = 0.0  # of the bias
    squares = x @ x.T if len(x) < x.shape[1] else x.T @ x
    # Böhning's bound: the curvature of softmax is at most half that of squares.
    curvature = 0.5 * np.linalg.eigvalsh(squares)[-1] / len(x) + penalty
    step = np.float32(1.0 / curvature)
    weights = ahead = np.zeros((x.shape[1], num_classes), "float32")
    for i in range(steps):
        logits = x @ ahead
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = x.T @ (shares - target) / len(x) + penalties * ahead
        if np.abs(gradient).max() < FLAT:
            break
        before, weights = weights, ahead - step * gradient
        ahead = weights + i / (i + 3) * (weights - before)
    return lambda features: inputs(features) @ weights


def wilson(right):
    """Returns the ends of Wilson's 95 % interval of a share.

    Args:
        right: bool `(n,)`, n at least 1.
    """
    n, share, z = len(right), float(np.mean(right)), 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


def _features(vim, split, batch_size):
    """Returns all features of a split by name, each `(n, dim)`."""
    count, num_codes = vim.config.layers, vim.config.num_codes
    run = compiled(
        lambda ids: {str(i): x for i, x in enumerate(vim.features_by_block(ids))}, vim
    )
    ids = np.asarray(split["ids"], "int32")
    starts = range(0, len(ids), batch_size)
    batches = [
        run(ids[start : start + batch_size])
        for start in tqdm(starts, desc="features", disable=None)
    ]
    blocks = {
        f"block {i}": np.concatenate([batch[str(i)] for batch in batches])
        for i in range(count)
    }
    pixels = to_floats(split["images"]).reshape(len(ids), -1)
    codes = np.stack([np.bincount(row, minlength=num_codes) for row in ids])
    return {"pixels": pixels, "codes": codes.astype("float32"), **blocks}


def _report(results):
    names = {"pixels": "raw pixels", "codes": "counts of the ids"}
    rows = [["the most frequent class", f"{100 * results['chance']:.1f}", ""]]
    for name, at in results["accuracy"].items():
        words = names.get(name, name)
        if name == f"block {results['middle_block']}":
            words += " (the paper's choice)"
        value, *ends = (100 * at[key] for key in ("value", "low", "high"))
        rows.append([words, f"{value:.1f}", "{:.1f}–{:.1f}".format(*ends)])
    table = markdown_table(["features", "accuracy (%)", "95 %"], rows)
    return (
        f"{table}\n\n{results['classes']} classes; fitted to {results['train']:,} "
        f"pictures, asked for {results['test']:,} others."
    )
