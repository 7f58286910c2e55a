"""Weights far from where training begins, so that every path of a model shows."""

import numpy as np


def scatter(model, scale=0.5):
    """Draws all trainable weights; returns the model."""
    random = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(scale * random.normal(size=weight.shape))
    return model


def scatter_matrices(*models, scale=0.5, seed=5):
    """Draws the matrices alone, and leaves biases and norms: pictures stay in range.

    Untrained blocks are identities, and their logits all but equal.
    """
    random = np.random.default_rng(seed)
    for model in models:
        for weight in model.weights:
            if len(weight.shape) > 1:
                weight.assign(random.normal(0.0, scale, weight.shape))
