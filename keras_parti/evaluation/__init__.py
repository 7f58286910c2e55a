"""Measures of trained models, and pictures of what they make.

Names are imported when first used, so that picture grids need no Keras.
"""

from keras_parti import lazy

_HOMES = {
    "ImageFeatures": "features",
    "PixelFeatures": "features",
    "Pictures": "pictures",
    "draw_accepted": "acceptance",
    "evaluate_linear_probe": "linear_probe",
    "evaluate_reconstruction": "reconstruction",
    "evaluate_retrieval": "retrieval",
    "grid": "gallery",
    "strip": "gallery",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
