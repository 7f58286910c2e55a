"""Text-to-image with discrete image tokens in Keras: ViT-VQGAN and Parti.

The public names below are loaded on first use, so that `import keras_parti` costs
nothing, and neither it nor the models need TensorFlow: they run on every backend
that Keras was told to use.

Example:
    >>> import keras_parti
    >>> "Vocabulary" in dir(keras_parti)
    True
"""

from keras_parti import lazy

__version__ = "0.1.0"

_HOMES = {
    "ClassToImage": "models",
    "Parti": "models",
    "TextToImage": "models",
    "VIM": "models",
    "ViTVQGAN": "models",
    "Vocabulary": "text",
    "WDSR": "models",
    "train_vocabulary": "text",
    "data": None,
    "evaluation": None,
    "layers": None,
    "losses": None,
    "mesh": None,
    "metrics": None,
    "models": None,
    "optimizers": None,
    "presets": None,
    "sampling": None,
    "serving": None,
    "text": None,
    "training": None,
}
__all__ = ["__version__", *sorted(_HOMES)]
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
