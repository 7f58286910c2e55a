"""Measures of trained models, and pictures of what they make.

Names are imported when first used, so that picture grids need no Keras.
"""

import importlib

_HOMES = {
    "ImageFeatures": "features",
    "PixelFeatures": "features",
    "Pictures": "pictures",
    "evaluate_reconstruction": "reconstruction",
    "evaluate_retrieval": "retrieval",
    "grid": "gallery",
    "strip": "gallery",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)


def __dir__():
    return __all__
