"""Finds the nearest pictures of a set, by distances in features."""

import numpy as np

from keras_parti.evaluation.features import ImageFeatures, PixelFeatures

# Kinds of distance: features and their weights. Why 0.7, see `features.py`.
SPACES = {
    "joined": {"image": 1.0, "pixels": 0.7},
    "image": {"image": 1.0},
    "pixels": {"pixels": 1.0},
}
NEIGHBOURS = 5  # as many as R@5 needs


class Index:
    """Finds the nearest pictures of a gallery, in several spaces at once.

    Features are centred on the gallery's mean and put on the unit sphere; joined ones
    are laid side by side, times their weights. The distance is Euclidean.

    Args:
        gallery: `Pictures`.
        features: names of `SPACES`.
    """

    def __init__(self, gallery, features):
        kinds = {kind for space in features for kind in SPACES[space]}
        makers = {"image": ImageFeatures, "pixels": PixelFeatures}
        self.extractors = {kind: makers[kind]() for kind in sorted(kinds)}
        raw = {kind: make(gallery.images) for kind, make in self.extractors.items()}
        self.centres = {kind: x.mean(axis=0) for kind, x in raw.items()}
        self.vectors = {space: self._place(raw, space) for space in features}

    def _place(self, raw, space):
        parts = []
        for kind, weight in SPACES[space].items():
            x = raw[kind] - self.centres[kind]
            norm = np.linalg.norm(x, axis=1, keepdims=True)
            parts.append(weight * x / np.maximum(norm, 1e-12))
        return np.concatenate(parts, axis=1)  # (batch, features)

    def search(self, images):
        """Finds the nearest pictures of the gallery.

        Args:
            images: uint8 `(batch, height, width, 3)`.

        Returns:
            A dict of space to int `(batch, 5)`: indices into the gallery, nearest
            first.
        """
        return {
            space: np.argsort(-products, kind="stable")[:, :NEIGHBOURS]
            for space, products in self._products(images).items()
        }

    def places(self, images, wanted):
        """Finds how many pictures of the gallery are as near as the wanted one.

        Args:
            images: uint8 `(batch, height, width, 3)`.
            wanted: int `(batch,)`, an index into the gallery for each.

        Returns:
            A dict of space to int `(batch,)`: 1 where the wanted picture is the nearest
            of all, the size of the gallery where it is the farthest.
        """
        rows = np.arange(len(wanted))
        return {
            space: (products >= products[rows, wanted][:, None]).sum(axis=1)
            for space, products in self._products(images).items()
        }

    def _products(self, images):
        # All vectors of a space are equally long: the nearest has the largest product.
        raw = {kind: make(images) for kind, make in self.extractors.items()}
        return {
            space: self._place(raw, space) @ vectors.T
            for space, vectors in self.vectors.items()
        }
