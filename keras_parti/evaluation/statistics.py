"""What is kept of the features of many pictures: sums, and a fair sample.

Memory does not grow with the number of pictures; statistics of parts, in whatever
order, add up to those of the whole; and a file of them takes the place of the pictures.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Self

import numpy as np

from keras_parti.data.arrays import read_npz, write_npz

# Features kept for the measures that need single pictures: 10,000 are what precision
# and recall were published with, 82 MB at 2,048 features.
SAMPLE = 10_000
SPLITS = 10  # of the Inception score, whose deviation over them is told


@dataclasses.dataclass(eq=False)
class Statistics:
    """Sums over pictures, in float64, and the features of some of them.

    Which pictures are in the sample is decided by a hash of each picture's name: those
    of the least hashes, so that every picture has the same chance, and parts that are
    merged give the sample of the whole.

    Args:
        width: int. Number of features.
        classes: int. Number of logits, or 0 where the network has none.
        network: str. What computed the features; others are not added to these.
    """

    width: int
    classes: int = 0
    network: str = ""

    def __post_init__(self):
        self.count = 0
        self.mean = np.zeros(self.width)
        self.scatter = np.zeros((self.width, self.width))  # about the mean
        self.keys = np.zeros(0, np.uint64)
        self.sample = np.zeros((0, self.width), np.float32)
        # Of the class probabilities, in the splits of the Inception score.
        self.split_counts = np.zeros(SPLITS)
        self.probabilities = np.zeros((SPLITS, self.classes))
        self.entropies = np.zeros(SPLITS)  # sums of p log p

    def add(
        self,
        names: Sequence[str],
        features: np.ndarray,
        logits: np.ndarray | None = None,
    ) -> None:
        """Adds pictures.

        Args:
            names: list of str. What tells the pictures apart.
            features: float `(batch, width)`.
            logits: float `(batch, classes)`, or None where there are none.

        Raises:
            ValueError: other widths, or features that are not finite.
        """
        features = np.asarray(features)
        if (
            features.shape != (len(names), self.width)
            or not np.isfinite(features).all()
        ):
            raise ValueError(
                f"`features` must be finite, of shape ({len(names)}, {self.width}). "
                f"Received: shape {features.shape}"
            )
        keys = np.array([_key(name) for name in names], np.uint64)
        part = Statistics(self.width, self.classes, self.network)
        part.count = len(names)
        part.mean = features.mean(axis=0, dtype=np.float64)
        centred = features.astype(np.float64) - part.mean
        part.scatter = centred.T @ centred
        part.keys, part.sample = keys, features.astype(np.float32)
        if self.classes:
            p = _softmax(np.asarray(logits, np.float64))
            split = (keys % SPLITS).astype(int)
            part.split_counts = np.bincount(split, minlength=SPLITS).astype(float)
            np.add.at(part.probabilities, split, p)
            terms = p * np.log(np.maximum(p, 1e-300))
            np.add.at(part.entropies, split, terms.sum(axis=1))
        self.merge(part)

    def merge(self, other: Self) -> None:
        """Adds the pictures of other statistics to these.

        Raises:
            ValueError: they are of another network.
        """
        ours, theirs = self._identity(), other._identity()
        if ours != theirs:
            raise ValueError(
                f"Statistics of {theirs} cannot be joined with those of {ours}: they "
                "are of other features."
            )
        total = self.count + other.count
        if not total:
            return
        # Chan, Golub and LeVeque, 1979: no digits are lost to the square of a mean.
        shift = other.mean - self.mean
        weight = self.count * other.count / total
        self.scatter += other.scatter + weight * np.outer(shift, shift)
        self.mean = self.mean + shift * (other.count / total)
        self.count = total
        keys = np.concatenate([self.keys, other.keys])
        sample = np.concatenate([self.sample, other.sample])
        if len(keys) > SAMPLE:
            least = np.argpartition(keys, SAMPLE)[:SAMPLE]
            keys, sample = keys[least], sample[least]
        self.keys, self.sample = keys, sample
        self.split_counts = self.split_counts + other.split_counts
        self.probabilities = self.probabilities + other.probabilities
        self.entropies = self.entropies + other.entropies

    @property
    def covariance(self):
        """float64 `(width, width)`, unbiased: divided by the count less one."""
        return self.scatter / max(self.count - 1, 1)

    def features(self) -> np.ndarray:
        """Returns the sample, float32 `(n, width)`, in an order of its own."""
        return self.sample[np.argsort(self.keys, kind="stable")]

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz` file, whole or not at all."""
        arrays = {name: np.asarray(getattr(self, name)) for name in _FIELDS}
        write_npz(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads a file of `save`; never unpickles.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds something else.
        """
        arrays = read_npz(path)
        if missing := set(_FIELDS) - arrays.keys():
            raise ValueError(f"{path} holds no statistics: no {sorted(missing)}.")
        made = cls(int(arrays["width"]), int(arrays["classes"]), str(arrays["network"]))
        for name in _FIELDS[3:]:
            wanted = np.asarray(getattr(made, name))
            fits = arrays[name].shape[wanted.ndim and 1 :] == wanted.shape[1:]
            if arrays[name].dtype != wanted.dtype or not fits:
                raise ValueError(f"{path} is damaged: {name} is {arrays[name].dtype}.")
            setattr(made, name, arrays[name])
        made.count = int(made.count)
        return made

    def _identity(self):
        return f"{self.network or 'an unnamed network'} ({self.width}, {self.classes})"


_FIELDS = (
    "width", "classes", "network", "count", "mean", "scatter", "keys", "sample",
    "split_counts", "probabilities", "entropies",
)  # fmt: skip


def _key(name):
    digest = hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
