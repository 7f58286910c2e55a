"""Training by `model.fit`: what the command, the examples and users share."""

from keras_parti import lazy

_HOMES = {"strategy": "strategies"}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
