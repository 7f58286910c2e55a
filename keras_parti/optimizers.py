"""Adafactor as Parti used it, gradient clipping that replicas share, the schedules."""

from typing import Any

import keras
from keras import ops

__all__ = ["Adafactor", "AdamW", "WarmupExponential", "warmup_cosine"]

# What Adafactor adds to squared gradients, ε₁ of its paper, so that it never divides
# by zero.
SQUARE_FLOOR = 1e-30


class _ClipsTheSum:
    """Clips gradients by the norm of their sum over all replicas.

    Keras clips what each replica has before it is summed, so that two replicas would
    learn otherwise than one device: 0.18 apart after four steps of SGD, where without
    clipping they are 5e-7 apart. Nor does Keras add up what the places of one id find
    in an embedding before it takes a norm: 2.96 for 1.25 where every id comes twice.
    Also keeps the norm, as `gradient_norm`.
    """

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable(
            (), name="gradient_norm", aggregation="only_first_replica"
        )

    def _clip_gradients(self, gradients):
        # On TensorFlow the sum over replicas is made later: see the next method.
        if keras.backend.backend() == "tensorflow":
            return gradients
        return self._clipped(gradients)

    # TensorFlow's own step of an update.
    def _all_reduce_sum_gradients(self, grads_and_vars):
        gradients, variables = zip(
            *super()._all_reduce_sum_gradients(grads_and_vars), strict=True
        )
        # Makes a sparse gradient dense, rows of one id added up.
        gradients = [
            ops.reshape(gradient, variable.shape)
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        return list(zip(self._clipped(gradients), variables, strict=True))

    def _clipped(self, gradients):
        squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
        norm = ops.sqrt(sum(squares))
        self.gradient_norm.assign(norm)
        if self.global_clipnorm is None:
            return gradients
        scale = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        return [gradient * ops.cast(scale, gradient.dtype) for gradient in gradients]


@keras.saving.register_keras_serializable("keras_parti")
class AdamW(_ClipsTheSum, keras.optimizers.AdamW):
    """Keras' AdamW, clipped by the norm of what all replicas found together.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        **kwargs: those of `keras.optimizers.AdamW`; of the three ways to clip only
            `global_clipnorm`.
    """


@keras.saving.register_keras_serializable("keras_parti")
class Adafactor(_ClipsTheSum, keras.optimizers.Optimizer):
    """Adafactor with momentum in 8 bits, as Parti used it.

    Of a matrix the second moment is kept as the means of its rows and of its columns,
    the momentum as int8 with one scale a column: 1 byte a parameter and some vectors,
    where AdamW keeps 8. For a gradient G of step t, counted from 1:

    - d = β₂ (1 − β₂ᵗ⁻¹) / (1 − β₂ᵗ);  V ← d V + (1 − d)(G² + 10⁻³⁰), where of a
      variable of rank 2 or more V is R Cᵀ / mean(R), R and C the means over the last
      axis and over the one before it;
    - U = G / √V;  U ← U / max(1, RMS(U) / `clipping_threshold`);
    - M ← β₁ M + (1 − β₁) · rate · U;  W ← W − M − rate · `weight_decay` · W;
    - M is then rounded to the nearest of −127 … 127 times s, s = max |M| / 127 over
      the first axis. What is subtracted from W is M before rounding.

    β₁, β₂, the weight decay and the 8 bits are Parti's (section 3). The rest is not
    published; it follows the optimiser of Praxis, the successor of Parti's framework:
    Adam's bias correction inside d instead of Adafactor's own decay, no scaling by the
    size of a parameter, momentum of updates that are scaled by the rate already.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        beta_1: float in `[0, 1)`. β₁.
        beta_2: float in `(0, 1)`. β₂.
        clipping_threshold: float. Largest root mean square of an update.
        weight_decay: float or None. Decoupled; `exclude_from_weight_decay` names
            variables that are left alone.
        global_clipnorm: float or None. Largest norm of all gradients together.
        **kwargs: those of `keras.optimizers.Optimizer`; of the three ways to clip only
            `global_clipnorm`.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 3
        - [Shazeer and Stern, 2018](https://arxiv.org/abs/1804.04235), algorithm 4
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 4.5e-5,
        beta_1: float = 0.9,
        beta_2: float = 0.96,
        clipping_threshold: float = 1.0,
        weight_decay: float | None = 4.5e-2,
        global_clipnorm: float | None = 4.0,
        name: str = "adafactor",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
            **kwargs,
        )
        if not 0 <= beta_1 < 1 or not 0 < beta_2 < 1:
            raise ValueError(
                "`beta_1` must be in [0, 1) and `beta_2` in (0, 1). "
                f"Received: beta_1={beta_1}, beta_2={beta_2}"
            )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.clipping_threshold = clipping_threshold

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momenta, self._scales, self._moments = [], [], []
        for variable in variables:
            shape, name = tuple(variable.shape), variable.name
            # A scalar has no axis to be scaled along, and nothing to save.
            dtype = "int8" if shape else "float32"
            momentum = self.add_variable(shape, dtype=dtype, name=f"{name}_momentum")
            scale = self.add_variable(shape[1:], name=f"{name}_scale")
            sums = [shape]
            if len(shape) > 1:
                sums = [shape[:-1], (*shape[:-2], shape[-1])]
            self._momenta.append(momentum)
            self._scales.append(scale)
            self._moments.append(
                [self.add_variable(s, name=f"{name}_moment") for s in sums]
            )

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        gradient = ops.cast(gradient, "float32")
        rate = ops.cast(learning_rate, "float32")
        update = gradient / self._root_of_moment(index, ops.square(gradient))
        size = ops.sqrt(ops.mean(ops.square(update)))
        update = update / ops.maximum(1.0, size / self.clipping_threshold)
        stored, scale = self._momenta[index], self._scales[index]
        momentum = ops.cast(stored, "float32")
        if len(variable.shape):
            momentum = momentum * scale
        momentum = self.beta_1 * momentum + (1 - self.beta_1) * rate * update
        self.assign_sub(variable, ops.cast(momentum, variable.dtype))
        if len(variable.shape):
            momentum, new_scale = quantize(momentum)
            self.assign(scale, new_scale)
        self.assign(stored, momentum)

    def _root_of_moment(self, index, square):
        """Takes a squared gradient in and returns √V, of a shape that broadcasts."""
        step = ops.cast(self.iterations + 1, "float32")
        decay = 1 - ops.power(self.beta_2, step - 1)
        decay = self.beta_2 * decay / (1 - ops.power(self.beta_2, step))
        square = square + SQUARE_FLOOR
        means = [square]
        if len(square.shape) > 1:
            means = [ops.mean(square, axis=-1), ops.mean(square, axis=-2)]
        moments = [
            decay * old + (1 - decay) * mean
            for old, mean in zip(self._moments[index], means, strict=True)
        ]
        for old, new in zip(self._moments[index], moments, strict=True):
            self.assign(old, new)
        if len(moments) == 1:
            return ops.sqrt(moments[0])
        rows, columns = moments
        rows = rows / ops.mean(rows, axis=-1, keepdims=True)
        return ops.sqrt(rows)[..., None] * ops.sqrt(columns)[..., None, :]

    def get_config(self):
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "clipping_threshold": self.clipping_threshold,
        }


def quantize(values):
    """Rounds to 255 levels, with one scale for each place of the other axes.

    Args:
        values: float32 of rank 1 or more.

    Returns:
        int8 of the same shape, in `[-127, 127]`, and float32 scales of the shape
        without its first axis: `ids * scales` differs from `values` by half a scale
        at most.
    """
    scales = ops.max(ops.abs(values), axis=0) / 127
    # Where all values are zero any scale serves.
    levels = ops.round(values / ops.where(scales > 0, scales, 1.0))
    return ops.cast(levels, "int8"), scales


def warmup_cosine(
    peak: float, warmup_steps: int, steps: int, floor: float = 0.01
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A linear warm-up to a peak, then a cosine down to a share of it.

    ViT-VQGAN's schedule (section 5.1) has this form: 50,000 steps up to 1e-4, then down
    to half of it at step 500,000.

    Args:
        peak: float. The highest rate.
        warmup_steps: int. Steps of the warm-up.
        steps: int. Steps of the whole run.
        floor: float in `[0, 1]`. The last rate, as a share of the peak.

    Returns:
        `keras.optimizers.schedules.LearningRateSchedule`.

    Example:
        >>> rate = warmup_cosine(peak=1.0, warmup_steps=10, steps=110, floor=0.5)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 60, 110)]
        [0.0, 0.5, 1.0, 0.75, 0.5]
    """
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, steps - warmup_steps),
        alpha=floor,
        warmup_target=peak,
        warmup_steps=warmup_steps,
    )


@keras.saving.register_keras_serializable("keras_parti")
class WarmupExponential(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to a peak, that peak for a while, then an exponential decay.

    The defaults are Parti's (section 3): 4.5e-5 from step 5,000 to step 85,000, then
    down to 0.025 of it at step 450,000. The paper's 4.5e-5 is as printed; its
    predecessors ViT-VQGAN and DALL-E name 4.5e-4.

    Args:
        peak: float. The highest rate.
        warmup_steps: int. Steps of the warm-up.
        decay_start: int. The last step at the peak.
        decay_end: int. The step that reaches the floor; the rate stays there.
        floor: float in `(0, 1]`. The last rate, as a share of the peak.

    Example:
        >>> rate = WarmupExponential()
        >>> steps = (0, 1_000, 5_000, 85_000, 267_500, 450_000, 500_000)
        >>> [f"{float(rate(step)):.3g}" for step in steps]
        ['0', '9e-06', '4.5e-05', '4.5e-05', '7.12e-06', '1.13e-06', '1.13e-06']
    """

    def __init__(
        self,
        peak: float = 4.5e-5,
        warmup_steps: int = 5_000,
        decay_start: int = 85_000,
        decay_end: int = 450_000,
        floor: float = 0.025,
    ) -> None:
        if not warmup_steps <= decay_start < decay_end:
            raise ValueError(
                "`warmup_steps`, `decay_start` and `decay_end` must follow each other. "
                f"Received: {warmup_steps}, {decay_start}, {decay_end}"
            )
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.decay_start = decay_start
        self.decay_end = decay_end
        self.floor = floor

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warm = ops.minimum(1.0, step / max(1, self.warmup_steps))
        span = self.decay_end - self.decay_start
        done = ops.clip((step - self.decay_start) / span, 0.0, 1.0)
        return self.peak * warm * ops.power(self.floor, done)

    def get_config(self):
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "decay_start": self.decay_start,
            "decay_end": self.decay_end,
            "floor": self.floor,
        }
