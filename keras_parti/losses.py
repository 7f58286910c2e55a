"""The losses of the papers; those that `compile` can take as `keras.losses.Loss`."""

import math

import keras
from keras import ops

# What ViT-VQGAN's loss gives its terms, section 3.3; the loss of the quantizer, which
# its layer adds, has weight 1. Sums over pixels or means are not published: means here.
LOSS_WEIGHTS = {"l2": 1.0, "laplace": 0.1, "perceptual": 0.1, "adversarial": 0.1}


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


@keras.saving.register_keras_serializable("keras_parti")
class HiddenTokenCrossEntropy(keras.losses.Loss):
    """Softmax cross-entropy averaged over the hidden tokens of each text, in nats.

    Call arguments:
        y_true: int32 `(batch, length)`: the token where one was hidden, else 0, which
            is padding. A text of which nothing was hidden counts zero.
        y_pred: float32 logits `(batch, length, vocab)`.

    References:
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805), section 3.1
    """

    def __init__(self, name="hidden_token_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        losses = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        hidden = ops.cast(ops.not_equal(y_true, 0), losses.dtype)
        count = ops.maximum(1.0, ops.sum(hidden, axis=-1))
        return ops.sum(hidden * losses, axis=-1) / count


@keras.saving.register_keras_serializable("keras_parti")
class Contrastive(keras.losses.Loss):
    """How well texts and pictures of a batch find each other, in nats.

    The mean of two cross-entropies over the dot products of all texts with all
    pictures: of the own picture among all, and of the own text among all. CoCa adds
    the two up. Under `tf.distribute` the others are those of the same replica.

    Call arguments:
        y_true: anything of length `batch`; not looked at.
        y_pred: float32 `(batch, 2, width)`: vectors of the text and of the picture,
            already divided by the temperature.

    References:
        - [Radford et al., 2021](https://arxiv.org/abs/2103.00020), section 2.3
    """

    def __init__(self, name="contrastive", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        logits = ops.matmul(y_pred[:, 0], ops.transpose(y_pred[:, 1]))
        own = ops.arange(ops.shape(logits)[0])
        losses = [
            ops.sparse_categorical_crossentropy(own, x, from_logits=True)
            for x in (logits, ops.transpose(logits))
        ]
        return (losses[0] + losses[1]) / 2


def generator_loss(fake_logits):
    """The non-saturating logistic loss of a generator, −ln σ(D(fake)).

    ViT-VQGAN does not publish its form; this is that of StyleGAN2, which it follows.

    Args:
        fake_logits: float `(batch,)`, the discriminator's of generated pictures.

    Returns:
        float32 scalar, the mean.

    References:
        - [Goodfellow et al., 2014](https://arxiv.org/abs/1406.2661), section 3
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), section 2
    """
    return ops.mean(ops.softplus(-ops.cast(fake_logits, "float32")))


def discriminator_loss(real_logits, fake_logits):
    """The logistic loss of a discriminator, −ln σ(D(real)) − ln(1 − σ(D(fake))).

    Args:
        real_logits: float `(batch,)`, of true pictures.
        fake_logits: float `(batch,)`, of generated ones.

    Returns:
        float32 scalar, the sum of the two means.
    """
    real, fake = (ops.cast(logits, "float32") for logits in (real_logits, fake_logits))
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def r1_penalty(gradients):
    """Half the squared norm of a discriminator's slope at true pictures.

    Its weight γ is 10 in StyleGAN2, which takes it every 16 steps with 16 times the
    weight; not published for ViT-VQGAN.

    Args:
        gradients: float `(batch, height, width, channels)`, ∂ ΣD(real) / ∂ real.

    Returns:
        float32 scalar, the mean over pictures.

    References:
        - [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), eq. 9
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), section 3.1
    """
    squares = ops.square(ops.cast(gradients, "float32"))
    return 0.5 * ops.mean(ops.sum(squares, axis=(1, 2, 3)))
