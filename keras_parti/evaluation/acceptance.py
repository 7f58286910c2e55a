"""Rejection by a classifier: of the pictures of a class, those it is surest of.

The paper's table 6 gives acceptance rates of 1.0 and 0.5, by a ResNet-101. That the
share of best pictures within each class is kept is VQGAN's reading of the words.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_parti.models.choosing import best_first
from keras_parti.pixels import to_floats
from keras_parti.typing import Tensor


def draw_accepted(
    draw: Callable[[np.ndarray, np.ndarray], np.ndarray],
    classifier: Callable[[np.ndarray], Tensor],
    labels: Sequence[int] | np.ndarray,
    num_samples: int,
    acceptance_rate: float,
    seed: int = 0,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Draws pictures of classes and keeps those that a classifier ranks best.

    Args:
        draw: callable of int32 labels `(batch,)` and int64 seeds `(batch,)` to uint8
            pictures `(batch, height, width, 3)`, such as `ClassToImage.draw`.
        classifier: callable of float32 pictures in [0, 1] to logits `(batch,
            classes)`, such as a Keras model without softmax.
        labels: ints. The classes to draw, by their place in the logits.
        num_samples: int. Pictures drawn of each; the j-th has the seed `seed + j`.
        acceptance_rate: float in (0, 1]. Share kept of each class, rounded up.
        seed: int.
        batch_size: int. Pictures drawn at a time.

    Returns:
        A dict: `images`, uint8 `(labels, kept, height, width, 3)`, the best first;
        `score`, float32 `(labels, kept)`, the log-probability that the classifier
        gives the class; `seed`, int64 `(labels, kept)`.

    Raises:
        ValueError: where a number is outside its range, or the classifier lacks a
            class.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), table 6
    """
    if not 0 < acceptance_rate <= 1:
        raise ValueError(
            "`acceptance_rate` must be in (0, 1]. "
            f"Received: acceptance_rate={acceptance_rate}"
        )
    labels = np.asarray(labels, "int32")
    if num_samples < 1 or not labels.size:
        raise ValueError(
            "At least one label and one sample are needed. "
            f"Received: {labels.size} labels, num_samples={num_samples}"
        )
    rows = np.repeat(labels, num_samples)
    seeds = np.tile(seed + np.arange(num_samples, dtype="int64"), len(labels))
    drawn, found = [], []
    for start in tqdm(range(0, len(rows), batch_size), desc="samples", disable=None):
        part = slice(start, start + batch_size)
        images = np.asarray(draw(rows[part], seeds[part]))
        logits = np.asarray(classifier(to_floats(images)), "float32")
        drawn.append(images)
        found.append(log_probability(logits, rows[part]))
    columns = {
        "images": np.concatenate(drawn),
        "score": np.concatenate(found),
        "seed": seeds,
    }
    shape = (len(labels), num_samples)
    columns = {n: each.reshape(*shape, *each.shape[1:]) for n, each in columns.items()}
    kept = math.ceil(acceptance_rate * num_samples)
    return best_first(columns, kept)


def log_probability(logits, labels):
    """Returns the log-softmax of logits `(batch, classes)` at labels `(batch,)`.

    Raises:
        ValueError: where the logits have no column for a label.
    """
    if logits.ndim != 2 or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            "`classifier` must give logits (batch, classes) with a column for each "
            f"label. Received: shape {logits.shape}, labels from {labels.min()} to "
            f"{labels.max()}"
        )
    logits = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits).sum(axis=1))
    return logits[np.arange(len(labels)), labels] - total
