"""Parti split over a mesh of devices, by named axes and layout rules.

One table of axes (`layouts.AXES`) names every tensor of Parti. A mesh shape and layout
rules, in Mesh-TensorFlow's notation, say how they are split; a layout changes where
things are computed, never what.

Names are imported when first used: layouts and plans need no TensorFlow.
"""

from keras_parti import lazy

_HOMES = {
    "Layout": "layouts",
    "MeshStep": "step",
    "ScannedStep": "ahead",
    "distribution": "gspmd",
    "from_keras": "weights",
    "plan": None,
    "to_keras": "weights",
    "train_on_mesh": "training",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
