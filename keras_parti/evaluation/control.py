"""Figures of text control: is what was found of the kinds that the prompt named?"""

import numpy as np

from keras_parti.evaluation.nearest import NEIGHBOURS

DRAWS = 10_000  # of the bootstrap
MEASURES = {
    "name@1": "right name, nearest",
    "name@5": "right name, among 5",
    "style": "right style, nearest",
    "tone": "right skin tone, nearest",
}


def hits(found, gallery, wanted):
    """Whether the pictures found are of the kinds wanted.

    Args:
        found: int `(batch, 5)`, indices into the gallery, nearest first.
        gallery: `Pictures`.
        wanted: `Pictures`, one a row of `found`.

    Returns:
        A dict of measure to float `(batch,)`: 1 right, 0 wrong; for "tone", NaN where
        no tone is wanted.
    """
    name = gallery.names[found] == wanted.names[:, None]  # (batch, 5)
    nearest = found[:, 0]
    tone = (gallery.tones[nearest] == wanted.tones).astype(float)
    return {
        "name@1": name[:, 0].astype(float),
        "name@5": name.any(axis=1).astype(float),
        "style": (gallery.styles[nearest] == wanted.styles).astype(float),
        "tone": np.where(wanted.tones == "", np.nan, tone),
    }


def chance(gallery, wanted):
    """What a random order of the gallery reaches: the expectation of `hits`.

    Args:
        gallery: `Pictures`.
        wanted: `Pictures`.

    Returns:
        As `hits`, with expectations.
    """
    size = len(gallery)
    right = (gallery.names[None] == wanted.names[:, None]).sum(axis=1)
    style = (gallery.styles[None] == wanted.styles[:, None]).mean(axis=1)
    tone = (gallery.tones[None] == wanted.tones[:, None]).mean(axis=1)
    return {
        "name@1": right / size,
        "name@5": found_by_chance(right, size, NEIGHBOURS),
        "style": style,
        "tone": np.where(wanted.tones == "", np.nan, tone),
    }


def found_by_chance(right, size, count):
    """How probable it is that a random order has a right one among its first `count`.

    Args:
        right: int `(batch,)`, how many are right.
        size: int. How many there are.
        count: int.

    Returns:
        float `(batch,)`.
    """
    drawn = np.arange(min(count, size))  # before each draw
    missed = np.clip(size - right[:, None] - drawn, 0, None) / (size - drawn)
    return 1.0 - missed.prod(axis=1)


def shuffled_hits(found, gallery, wanted):
    """The hits of each prompt's picture, were it drawn for another prompt of the set.

    The mean over all the other prompts: what all shuffles give on average, without the
    luck of one. A value above chance says how alike the prompts of the set are.

    Returns:
        As `hits`; NaN where the set has one prompt only.
    """
    count = len(wanted)
    totals = {key: np.full((count, max(count - 1, 1)), np.nan) for key in MEASURES}
    for shift in range(1, count):
        other = wanted.take(np.roll(np.arange(count), shift))
        for key, values in hits(found, gallery, other).items():
            totals[key][:, shift - 1] = values
    return {key: _mean(values, axis=1) for key, values in totals.items()}


def interval(values, seed):
    """The 95 % bootstrap interval of a mean, by resampling prompts.

    Args:
        values: float `(batch,)`.
        seed: int.

    Returns:
        (low, high). Where all values are equal it has no width, whatever their number.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(values), size=(DRAWS, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def measure(found, ceiling, gallery, wanted, seed):
    """Computes all figures of a set of prompts in a space.

    Args:
        found: int `(batch, 5)`, what the generated pictures found.
        ceiling: the same for the reconstructions of the true pictures.
        gallery: `Pictures`.
        wanted: `Pictures`, the set.
        seed: int.

    Returns:
        A dict of measure to a dict of floats, with `queries`, the number of prompts it
        is about. A measure that is about none is left out.
    """
    values = hits(found, gallery, wanted)
    ceilings = hits(ceiling, gallery, wanted)
    random = chance(gallery, wanted)
    shuffled = shuffled_hits(found, gallery, wanted)
    figures = {}
    for key in MEASURES:
        asked = ~np.isnan(values[key])
        if not asked.any():
            continue
        low, high = interval(values[key][asked], seed)
        value, top = values[key][asked].mean(), ceilings[key][asked].mean()
        figures[key] = {
            "queries": int(asked.sum()),
            "value": float(value),
            "low": low,
            "high": high,
            "ceiling": float(top),
            "of_ceiling": float(value / top) if top else None,
            "shuffled": _plain(_mean(shuffled[key])),
            "chance": float(random[key][asked].mean()),
        }
    return figures


def weighted_hits(found, gallery, wanted, weights):
    """Means of `hits` over prompts that have several samples each.

    Args:
        found: int `(batch * samples, 5)`, the samples of a prompt side by side.
        gallery: `Pictures`.
        wanted: `Pictures`, the batch.
        weights: float `(samples,)`, as of `best_of_weights`.

    Returns:
        A dict of measure to float, without the measures that are about no prompt.
    """
    repeated = wanted.take(np.repeat(np.arange(len(wanted)), len(weights)))
    values = {}
    for key, hit in hits(found, gallery, repeated).items():
        mean = _plain(_mean(hit.reshape(len(wanted), len(weights)) @ weights))
        if mean is not None:
            values[key] = mean
    return values


def _mean(values, axis=None):
    """The mean of what is no NaN; NaN, without a warning, where nothing else is."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _plain(value):
    """A float for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
