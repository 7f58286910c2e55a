"""Captioned pictures and token caches.

Names are imported when first used, so that the NumPy parts work without TensorFlow.
"""

import importlib.util

from keras_parti import lazy

_HOMES = {
    "EmojiCaptions": "emoji_captions",
    "Photographs": "photographs",
    "PictureFolder": "folder",
    "StoredSplit": "datasets",
    "augment": "augmentation",
    "HandwrittenDigits": "digits",
    "load": "datasets",
    "load_npz": "arrays",
    "read_manifest": "token_cache",
    "read_token_arrays": "token_cache",
    "read_token_cache": "token_cache",
    "splits": "datasets",
    "to_npz": "arrays",
    "write_token_cache": "token_cache",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)

# Importing a builder is what makes `tfds.load("emoji_captions/small")` find it. It
# takes half a second and leaves TensorFlow alone where that is not imported yet.
if all(map(importlib.util.find_spec, ("tensorflow", "tensorflow_datasets"))):
    importlib.import_module(f"{__name__}.emoji_captions")
    importlib.import_module(f"{__name__}.digits")
    importlib.import_module(f"{__name__}.photographs")
