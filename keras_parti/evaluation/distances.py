"""How far drawn pictures are from real ones, from statistics of their features.

NumPy alone. With the features of Inception v3 as the FID was published with, and the
paper's protocol, the first is the FID of Parti's table 5.
"""

import numpy as np

from keras_parti.evaluation.statistics import Statistics

# Of the kernel distance: what it was published with.
KERNEL_SUBSETS, KERNEL_SUBSET = 100, 1000
NEIGHBOURS = 3  # of precision and recall
BLOCK = 1000  # rows of a matrix of distances held at a time


def frechet_distance(ours: Statistics, theirs: Statistics) -> float:
    """Fréchet distance of the normal distributions with two means and covariances.

    `|m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁ C₂)^½)`. The trace of the root is the sum of the
    roots of the eigenvalues of `C₁^½ C₂ C₁^½`, which is symmetric: two decompositions
    of symmetric matrices in place of the root of one that is not.

    Args:
        ours: `Statistics`.
        theirs: `Statistics` of the same features.

    Returns:
        float, not negative.

    Raises:
        ValueError: other features, or fewer than two pictures.

    Example:
        >>> ours, theirs = Statistics(width=3), Statistics(width=3)
        >>> features = np.random.default_rng(0).normal(size=(11, 3))
        >>> names = [f"picture {i}" for i in range(11)]
        >>> ours.add(names, features)
        >>> theirs.add(names, features + 1.0)  # the means alone differ, by 1 in each
        >>> round(frechet_distance(ours, theirs), 6)
        3.0

    References:
        - [Heusel et al., 2017](https://arxiv.org/abs/1706.08500), eq. 6
    """
    _check(ours, theirs)
    first, second = ours.covariance, theirs.covariance
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # With fewer pictures than features rounding makes some of these negative.
    middle = np.linalg.eigvalsh(root @ second @ root)
    trace = np.sqrt(np.maximum(middle, 0.0)).sum()
    shift = ours.mean - theirs.mean
    distance = shift @ shift + np.trace(first) + np.trace(second) - 2.0 * trace
    return float(max(distance, 0.0))


def kernel_distance(
    ours: Statistics, theirs: Statistics, seed: int = 0
) -> tuple[float, float]:
    """Kernel Inception distance: an unbiased squared mean discrepancy.

    Of the kernel `(x·y / width + 1)³`, over 100 random subsets of 1,000 of each sample,
    or of as many as the smaller has. Unlike the Fréchet distance its expectation does
    not depend on the number of pictures.

    Args:
        ours: `Statistics`.
        theirs: `Statistics` of the same features.
        seed: int. Of the subsets.

    Returns:
        Two floats: the mean and the standard deviation over subsets. The mean may be
        slightly negative.

    Raises:
        ValueError: other features, or fewer than two pictures.

    References:
        - [Bińkowski et al., 2018](https://arxiv.org/abs/1801.01401), section 4
    """
    _check(ours, theirs)
    random = np.random.default_rng(seed)
    mine = ours.features().astype(np.float64)
    other = theirs.features().astype(np.float64)
    size = min(KERNEL_SUBSET, len(mine), len(other))
    values = []
    for _ in range(KERNEL_SUBSETS):
        x = mine[random.choice(len(mine), size, replace=False)]
        y = other[random.choice(len(other), size, replace=False)]
        xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
        pairs = size * (size - 1)
        same = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / pairs
        values.append(same - 2.0 * xy.mean())
    return float(np.mean(values)), float(np.std(values))


def precision_recall(
    real: Statistics, drawn: Statistics, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Improved precision and recall of the manifold of pictures.

    A ball about each picture reaches to its `neighbours`-th nearest of the same set.
    Precision is the share of drawn pictures in the balls of real ones (are they good?),
    recall the share of real pictures in the balls of drawn ones (is all there?).

    Args:
        real: `Statistics`; its sample is used.
        drawn: `Statistics` of the same features.
        neighbours: int.

    Returns:
        Two floats in [0, 1].

    Raises:
        ValueError: other features, or no more pictures than `neighbours`.

    References:
        - [Kynkäänniemi et al., 2019](https://arxiv.org/abs/1904.06991), eq. 2
    """
    _check(real, drawn)
    truth, made = real.features(), drawn.features()
    if min(len(truth), len(made)) <= neighbours:
        raise ValueError(
            f"Precision and recall need more than {neighbours} pictures of each kind. "
            f"Received: {len(truth)} and {len(made)}"
        )
    return (
        _inside(made, truth, _radii(truth, neighbours)),
        _inside(truth, made, _radii(made, neighbours)),
    )


def inception_score(statistics: Statistics) -> tuple[float, float]:
    """`exp(E KL(p(y|x) ‖ p(y)))`: pictures are clear, and of many kinds.

    Args:
        statistics: `Statistics` of a network with logits.

    Returns:
        Two floats: the mean and the standard deviation over ten splits.

    Raises:
        ValueError: there are no logits, or too few pictures for every split.

    References:
        - [Salimans et al., 2016](https://arxiv.org/abs/1606.03498), section 4
    """
    counts = statistics.split_counts
    if not counts.all():
        raise ValueError(
            "The Inception score needs logits of pictures in all its splits. "
            f"Received: {counts.astype(int).tolist()}"
        )
    marginal = statistics.probabilities / counts[:, None]  # (splits, classes)
    logs = np.log(np.maximum(marginal, 1e-300))
    divergence = statistics.entropies / counts - (marginal * logs).sum(axis=1)
    scores = np.exp(divergence)
    return float(scores.mean()), float(scores.std())


def _kernel(x, y):
    base = x @ y.T / x.shape[1] + 1.0
    return base * base * base  # NumPy's power takes ten times as long


def _squared_distances(x, y):
    # float64: differences of squares of far points lose the near ones in float32.
    x, y = x.astype(np.float64), y.astype(np.float64)
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2.0 * x @ y.T
    return np.maximum(squares, 0.0)


def _radii(points, neighbours):
    """Squared distance of each point to its k-th nearest, itself not counted."""
    found = [
        # The nearest is the point itself.
        np.partition(_squared_distances(part, points), neighbours)[:, neighbours]
        for part in _blocks(points)
    ]
    return np.concatenate(found)


def _inside(points, centres, radii):
    inside = [
        (_squared_distances(part, centres) <= radii).any(axis=1)
        for part in _blocks(points)
    ]
    return float(np.concatenate(inside).mean())


def _blocks(points):
    return (points[start : start + BLOCK] for start in range(0, len(points), BLOCK))


def _check(ours, theirs):
    names = (ours.network, ours.width), (theirs.network, theirs.width)
    if names[0] != names[1]:
        raise ValueError(f"Both must have the same features. Received: {names}")
    if min(ours.count, theirs.count) < 2:
        raise ValueError(
            "At least two pictures of each kind are needed. "
            f"Received: {ours.count} and {theirs.count}"
        )
