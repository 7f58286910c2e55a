"""The losses of the papers, as `keras.losses.Loss`, so that `compile` takes them."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_parti")
class LogitLaplace(keras.losses.Loss):
    """Negative log-likelihood of pixels under a logit-Laplace distribution.

    With y = (1 − 2ε)·x + ε the loss of a value x in `[0, 1]` is
    ln 2b + ln y(1 − y) + |logit(y) − μ| / b, averaged over all values. ViT-VQGAN
    names the loss without defining it; the definition and ε = 0.1 are DALL-E's.

    Args:
        epsilon: float in (0, 0.5). ε.
        log_scale_floor: float or None. The least ln b; a smaller prediction counts
            as this one. None, as in the papers: no floor. Where many pixels have
            one exact value, as white paper has, the likelihood has no upper bound
            without a floor.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: float `(batch, height, width, 3)`, RGB in `[0, 1]`.
        y_pred: float `(batch, height, width, 6)`: three μ, then three ln b.

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), appendix A.3
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3.3
    """

    def __init__(
        self, epsilon=0.1, log_scale_floor=None, name="logit_laplace", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        if not 0 < epsilon < 0.5:
            raise ValueError(
                f"`epsilon` must be in (0, 0.5). Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon
        self.log_scale_floor = log_scale_floor

    def call(self, y_true, y_pred):
        y = (1 - 2 * self.epsilon) * ops.cast(y_true, "float32") + self.epsilon
        mean, log_scale = ops.split(ops.cast(y_pred, "float32"), 2, axis=-1)
        if self.log_scale_floor is not None:
            log_scale = ops.maximum(log_scale, self.log_scale_floor)
        log_odds = ops.log(y) - ops.log1p(-y)
        log_jacobian = ops.log(y) + ops.log1p(-y)
        error = ops.abs(log_odds - mean) * ops.exp(-log_scale)
        loss = math.log(2.0) + log_scale + log_jacobian + error
        return ops.mean(loss, axis=(1, 2, 3))

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "log_scale_floor": self.log_scale_floor,
        }


@keras.saving.register_keras_serializable("keras_parti")
class TokenCrossEntropy(keras.losses.Loss):
    """Softmax cross-entropy averaged over the tokens of an image, in nats.

    Call arguments:
        y_true: int32 `(batch, length)`.
        y_pred: float32 logits `(batch, length, num_codes)`.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.2
    """

    def __init__(self, name="token_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        losses = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return ops.mean(losses, axis=-1)
