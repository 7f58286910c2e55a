"""`keras_parti.optimizers.Adafactor` in named axes, for stacked and split variables.

Equations and settings are that class's, which says where they come from; each
member of a stacked variable is updated as if it were alone.
"""

import math

import tensorflow as tf

from keras_parti.mesh.compat import mtf
from keras_parti.optimizers import SQUARE_FLOOR


class MeshAdafactor:
    """Builds the updates of a graph's variables.

    Args:
        graph: `PartiGraph`, on whose mesh the state is made.
        rate: float32 scalar of TensorFlow. The learning rate of this step.
        step: int32 scalar of TensorFlow. Steps done before.
        beta_1: float. β₁.
        beta_2: float. β₂.
        clipping_threshold: float. Largest root mean square of an update.
        weight_decay: float. Decoupled, of matrices only.
        global_clipnorm: float. Largest norm of all gradients together.
    """

    def __init__(
        self,
        graph,
        rate,
        step,
        beta_1=0.9,
        beta_2=0.96,
        clipping_threshold=1.0,
        weight_decay=4.5e-2,
        global_clipnorm=4.0,
    ):
        self.graph, self.beta_1 = graph, beta_1
        power = beta_2 ** tf.cast(step, tf.float32)
        decay = beta_2 * (1 - power) / (1 - beta_2 * power)
        self.rate, self.decay = (
            mtf.import_tf_tensor(graph.mesh, x) for x in (rate, decay)
        )
        self.clipping_threshold = clipping_threshold
        self.weight_decay = weight_decay
        self.global_clipnorm = global_clipnorm

    def updates(self, variables, gradients):
        """Returns the assignments of one step and the norm of all gradients.

        Args:
            variables: list of `variables.Variable`.
            gradients: list of `mtf.Tensor`, in their order.
        """
        norm = mtf.sqrt(
            mtf.add_n([mtf.reduce_sum(mtf.square(gradient)) for gradient in gradients])
        )
        scale = self.global_clipnorm / mtf.maximum(norm, self.global_clipnorm)
        assigned = []
        for variable, gradient in zip(variables, gradients, strict=True):
            assigned += self._update(variable, gradient * scale)
        return [mtf.assign(old, new) for old, new in assigned], norm

    def _update(self, variable, gradient):
        """Returns pairs of what is kept and its next value."""
        state = {
            name: self.graph.variable(array, trainable=False)
            for name, array in variable.slots().items()
        }
        weight = self.graph.variables[variable.name]
        stack = weight.shape.dims[:1]
        root, moments = self._root_of_moment(variable, state, mtf.square(gradient))
        update = gradient / root
        squares = mtf.reduce_sum(mtf.square(update), output_shape=mtf.Shape(stack))
        # Padded rows and columns are all zeros, and are not counted.
        size = mtf.sqrt(squares * (1 / variable.member_size))
        update = update / mtf.maximum(size / self.clipping_threshold, 1.0)

        momentum = mtf.cwise(
            _decoded, [state["momentum"], update], output_dtype=tf.float32
        )
        momentum *= state["scale"]
        momentum = self.beta_1 * momentum + (1 - self.beta_1) * self.rate * update
        step = momentum
        if variable.rows:
            step += weight * (self.rate * self.weight_decay)
        scale = mtf.reduce_max(mtf.abs(momentum), output_shape=state["scale"].shape) * (
            1 / 127
        )
        unit = mtf.cwise(lambda s: tf.where(s > 0, s, tf.ones_like(s)), [scale])
        levels = mtf.cwise(tf.round, [momentum / unit])
        return [
            (weight, weight - step),
            (state["momentum"], levels),
            (state["scale"], scale),
            *((state[name], value) for name, value in moments.items()),
        ]

    def _root_of_moment(self, variable, state, square):
        """Returns √V, of the shape of `square`, and the moments that it comes from."""
        square += SQUARE_FLOOR

        def blended(name, mean):
            return self.decay * state[name] + (1.0 - self.decay) * mean

        if not variable.rows:
            moment = blended("moment", square)
            return mtf.sqrt(moment), {"moment": moment}
        moments = {}
        for name, others in (
            ("row_moment", variable.columns),
            ("column_moment", variable.rows),
        ):
            total = mtf.reduce_sum(square, output_shape=state[name].shape)
            moments[name] = blended(name, total * (1 / math.prod(others.values())))
        rows, columns = moments.values()
        mean = mtf.reduce_sum(rows, output_shape=mtf.Shape(rows.shape.dims[:1]))
        mean *= 1 / math.prod(variable.rows.values())
        root = mtf.multiply(
            mtf.sqrt(rows / mean), mtf.sqrt(columns), output_shape=square.shape
        )
        return root, moments


def _decoded(levels, update):
    # Once the update is there. TensorFlow would decode all variables' momentum as soon
    # as it can, at the step's begin: 8 bytes a parameter, for the whole step.
    with tf.control_dependencies([update]):
        return tf.cast(levels, tf.float32)
