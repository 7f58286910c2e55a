"""Mesh-TensorFlow 0.1.21 on today's TensorFlow: `from ...mesh.compat import mtf`.

Its last release asks for two names that newer TensorFlow moved or dropped. Both are set
before its import, here and nowhere else:

- `tf.compat.v1.estimator`, of which it wants two classes that live in
  `tf.compat.v1.train`;
- `register_tensor_conversion_function`, which is public below `tf` now.

Its sub-package `mesh_tensorflow.transformer` needs the dropped Estimator itself and is
not used.
"""

import types

import tensorflow as tf
import tensorflow.compat.v1 as tf1
from tensorflow.python.framework import ops

if not hasattr(tf1, "estimator"):
    tf1.estimator = types.SimpleNamespace(
        CheckpointSaverListener=tf1.train.CheckpointSaverListener,
        SessionRunHook=tf1.train.SessionRunHook,
    )
if not hasattr(ops, "register_tensor_conversion_function"):
    ops.register_tensor_conversion_function = tf.register_tensor_conversion_function

import mesh_tensorflow as mtf

__all__ = ["mtf", "tf1"]
