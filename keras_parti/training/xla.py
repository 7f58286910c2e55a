"""Whether a training step compiles whole under XLA: what a TPU asks of it."""

import re
from typing import Any

import keras
import tensorflow as tf

# An instruction whose result has a dimension that is only bounded, and its origin.
BOUNDED = re.compile(r'\[[\d,]*<=.*?op_type="(\w+)" op_name="([^"]+)"')
LACKING = re.compile(r"\((No registered '\w+' OpKernel)[^{]*\{\{node ([^}]+)\}\}")


def check_compiles(model: keras.Model, batch: Any) -> str:
    """Compiles a training step of a compiled Keras model, without running it.

    TPUs run only what XLA compiles, with shapes that are known before: the whole step,
    optimiser and metrics included. Here the step becomes XLA's program, HLO; it is not
    made into code of this machine, and no weight changes.

    Args:
        model: a `keras.Model` that was compiled, and called or built.
        batch: what `fit` would take: inputs and targets as arrays, of a fixed size.

    Returns:
        str, the program.

    Raises:
        ValueError: an operation has no XLA form, or a shape depends on values. The
            operation is named.
    """
    batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
    step = tf.function(model.train_step, jit_compile=True)
    what = f"A training step of {type(model).__name__} does not compile under XLA: "
    try:
        program = step.experimental_get_compiler_ir(batch)(stage="hlo")
    except (ValueError, TypeError, tf.errors.OpError) as error:
        words = " ".join(str(error).split())
        found = LACKING.search(words)
        words = f"{found[1]}, of {found[2]}" if found else words
        raise ValueError(what + words) from error
    if found := BOUNDED.search(program):
        raise ValueError(f"{what}a shape depends on values, by {found[1]} {found[2]}")
    return program
