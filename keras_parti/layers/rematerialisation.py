"""Memory for time: activations that the backward pass computes again."""

import keras
from keras import ops

# A step of training draws from a generator fewer times than this inside one layer.
DRAWS = 1024


def recomputed(layer, *inputs, **constants):
    """Calls a layer of which only the inputs are kept for the backward pass.

    Outputs and gradients are those of the plain call; the backward pass takes one more
    forward pass of the layer. Dropout draws other numbers than in a plain call, and the
    same in both of its passes.

    Args:
        layer: a built layer. Its non-trainable variables are the states of random
            generators, or weights that are frozen.
        *inputs: float tensors, to which gradients flow.
        **constants: the layer's further arguments, to which none flows.

    Returns:
        What the layer returns, one float tensor.
    """
    # Everything a second pass reads is read here once, because a generator moves on
    # with each draw, and because JAX lets no state out of the function it calls again.
    states = []
    for variable in layer.non_trainable_variables:
        value = ops.convert_to_tensor(variable.value)
        if "float" not in keras.backend.standardize_dtype(value.dtype):
            # A generator's state is (seed, draws): this step's draws begin at a
            # multiple of `DRAWS`, so that no two steps share any.
            variable.assign(value + ops.convert_to_tensor([0, 1], dtype=value.dtype))
            value = value * ops.convert_to_tensor([1, DRAWS], dtype=value.dtype)
        states.append(value)
    weights = [ops.convert_to_tensor(v.value) for v in layer.trainable_variables]

    @keras.remat
    def call(*tensors):
        tensors, weights = tensors[: len(inputs)], tensors[len(inputs) :]
        return layer.stateless_call(weights, states, *tensors, **constants)[0]

    return call(*inputs, *weights)
