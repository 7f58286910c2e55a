"""Text-to-image with discrete image tokens in Keras: ViT-VQGAN and Parti.

The public names below are loaded on first use, so that `import keras_parti` costs
nothing, and neither it nor the models need TensorFlow: they run on every backend
that Keras was told to use.

Example:
    >>> import keras_parti
    >>> "Vocabulary" in dir(keras_parti)
    True
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "Parti": "keras_parti.models",
    "TextToImage": "keras_parti.models",
    "ViTVQGAN": "keras_parti.models",
    "Vocabulary": "keras_parti.text",
    "train_vocabulary": "keras_parti.text",
}
_MODULES = (
    "data",
    "evaluation",
    "layers",
    "losses",
    "metrics",
    "models",
    "presets",
    "sampling",
    "serving",
    "text",
    "training",
)

__all__ = ["__version__", *sorted(_HOMES), *_MODULES]


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__():
    return sorted(__all__)
