"""How a function of a model's weights is compiled, on each backend."""

from collections.abc import Callable

import keras
from keras import ops

__all__ = ["compiled"]


def compiled(function: Callable, model: keras.Model, numpy: bool = True) -> Callable:
    """Compiles a function that reads a model's weights, on the backend in use.

    Args:
        function: function of nests of tensors that returns a nest of tensors.
        model: `keras.Model` whose weights it reads.
        numpy: bool. Whether the function that is returned returns NumPy arrays; if
            not, it returns tensors, to be given to the next function.

    Returns:
        A function of nests of NumPy arrays or tensors. On TensorFlow one graph serves
        all batch sizes; JAX compiles once for each.
    """
    variables = model.variables

    def pure(values, arguments):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arguments)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(
            lambda arguments: function(*arguments),
            autograph=False,
            reduce_retracing=True,
        )

        def run(arguments):
            return graph(keras.tree.map_structure(tf.convert_to_tensor, arguments))
    elif keras.backend.backend() == "jax":
        import jax

        graph = jax.jit(pure)

        def run(arguments):
            return graph([v.value for v in variables], arguments)
    else:

        def run(arguments):
            return pure([v.value for v in variables], arguments)

    def call(*arguments):
        outputs = run(arguments)
        if not numpy:
            return outputs
        return keras.tree.map_structure(ops.convert_to_numpy, outputs)

    return call
