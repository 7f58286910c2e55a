"""The losses of the papers; those that `compile` can take as `keras.losses.Loss`."""

import math
from typing import Any

import keras
from keras import ops

from keras_parti.typing import Tensor

__all__ = [
    "Contrastive",
    "LogitLaplace",
    "TextCrossEntropy",
    "TokenCrossEntropy",
    "discriminator_loss",
    "generator_loss",
    "r1_penalty",
]

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
            as this one, and has the slope at the floor where that leads upwards.
            None, as in the papers: no floor. Where many pixels have one exact value, as
            white paper has, the likelihood has no upper bound without a floor.
        **kwargs: `name` and `reduction` of `keras.losses.Loss`.

    Call arguments:
        y_true: float `(batch, height, width, 3)`, RGB in `[0, 1]`.
        y_pred: float `(batch, height, width, 6)`: three μ, then three ln b.

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), appendix A.3
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3.3
    """

    def __init__(
        self,
        epsilon: float = 0.1,
        log_scale_floor: float | None = None,
        name: str = "logit_laplace",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not 0 < epsilon < 0.5:
            raise ValueError(
                f"`epsilon` must be in (0, 0.5). Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon
        self.log_scale_floor = log_scale_floor

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y = (1 - 2 * self.epsilon) * ops.cast(y_true, "float32") + self.epsilon
        mean, log_scale = ops.split(ops.cast(y_pred, "float32"), 2, axis=-1)
        log_odds = ops.log(y) - ops.log1p(-y)
        log_jacobian = ops.log(y) + ops.log1p(-y)
        error = ops.abs(log_odds - mean)
        if self.log_scale_floor is not None:
            log_scale = self._floored(log_scale, error)
        error = error * ops.exp(-log_scale)
        loss = math.log(2.0) + log_scale + log_jacobian + error
        return ops.mean(loss, axis=(1, 2, 3))

    def _floored(self, log_scale, error):
        """Returns log scales of at least the floor, and lets those below it rise.

        The best b is the error. Where that is above the floor the slope passes as if
        nothing were cut off: else a scale that once fell below would stay there however
        large errors became.
        """
        floor = self.log_scale_floor
        floored = ops.maximum(log_scale, floor)
        passing = log_scale + ops.stop_gradient(floored - log_scale)
        return ops.where(error > math.exp(floor), passing, floored)

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

    Example:
        >>> nothing_known = ops.zeros((2, 3, 8))  # logits of 8 codes
        >>> loss = TokenCrossEntropy()(ops.zeros((2, 3), "int32"), nothing_known)
        >>> round(float(loss) / math.log(2), 3)  # bits
        3.0

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), sections 2.3 and 5.4
    """

    def __init__(self, name: str = "token_cross_entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        losses = _cross_entropy(y_true, y_pred)
        return ops.mean(losses, axis=-1)


@keras.saving.register_keras_serializable("keras_parti")
class TextCrossEntropy(keras.losses.Loss):
    """Softmax cross-entropy averaged over the tokens to tell of each text, in nats.

    BERT's objective, where these are the hidden ones, and CoCa's captioning loss, where
    they are the next ones. CoCa writes the sum over a text; with the mean, long texts
    count no more than short ones.

    Call arguments:
        y_true: int32 `(batch, length)`: the token where one is to be told, else 0,
            which is padding. A text of which none is counts zero.
        y_pred: float32 logits `(batch, length, vocab)`.

    References:
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805), section 3.1
        - [Yu et al., 2022](https://arxiv.org/abs/2205.01917), eq. 3
    """

    def __init__(self, name: str = "text_cross_entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        losses = _cross_entropy(y_true, y_pred)
        told = ops.cast(ops.not_equal(y_true, 0), losses.dtype)
        count = ops.maximum(1.0, ops.sum(told, axis=-1))
        return ops.sum(told * losses, axis=-1) / count


@keras.saving.register_keras_serializable("keras_parti")
class Contrastive(keras.losses.Loss):
    """How well texts and pictures of a batch find each other, in nats.

    The mean of two cross-entropies over the dot products of all texts with all
    pictures: of the own picture among all, and of the own text among all. CoCa's
    equation 2 adds the two up. Under `tf.distribute` the others are those of the same
    replica; `keras_parti.training.contrastive` has them of all.

    Call arguments:
        y_true: anything of length `batch`; not looked at.
        y_pred: float32 `(batch, 2, width)`, as `contrastive_vectors` returns.

    References:
        - [Radford et al., 2021](https://arxiv.org/abs/2103.00020), section 2.3
        - [Yu et al., 2022](https://arxiv.org/abs/2205.01917), eq. 2
    """

    def __init__(self, name: str = "contrastive", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        others, before = self.gather(y_pred)
        own = before + ops.arange(ops.shape(y_pred)[0])
        losses = [
            ops.sparse_categorical_crossentropy(
                own,
                ops.matmul(y_pred[:, one], ops.transpose(others[:, 1 - one])),
                from_logits=True,
            )
            for one in (0, 1)
        ]
        return (losses[0] + losses[1]) / 2

    def gather(self, vectors: Tensor) -> tuple[Tensor, int | Tensor]:
        """Returns the rows to choose among, and how many stand before the own ones."""
        return vectors, 0


# Of CoCa's first temperature, 0.07.
FIRST_LOG_SCALE = math.log(1 / 0.07)


def add_log_scale(model):
    """Adds the temperature that `contrastive_vectors` takes to a model's weights."""
    return model.add_weight(
        name="log_scale",
        shape=(),
        initializer=keras.initializers.Constant(FIRST_LOG_SCALE),
        autocast=False,  # bfloat16 would round it by 1 part in 256
    )


def contrastive_vectors(text, image, log_scale):
    """Makes of a text's and a picture's vectors what `Contrastive` compares.

    Args:
        text: float `(batch, width)`.
        image: float `(batch, width)`.
        log_scale: float32 scalar, the logarithm of the inverse temperature.

    Returns:
        float32 `(batch, 2, width)`: the text's vector, of the length of the inverse
        temperature, and the picture's, of length 1.
    """
    pair = ops.cast(ops.stack([text, image], axis=1), "float32")
    scale = ops.stack([ops.exp(ops.cast(log_scale, "float32")), 1.0])[:, None]
    return ops.normalize(pair, axis=-1) * scale


def _cross_entropy(ids, logits):
    """Returns −ln softmax(logits)[id] of each of the `ids`, and its slope, cheaply.

    TensorFlow's own kernel took 239 ms, forward and backward, for 4,096 × 8,192 logits
    on two cores, and this 108 in the same run.
    """
    ids = ops.cast(ids, "int32")  # `keras.losses.Loss` has made floats of them

    @ops.custom_gradient
    def cross_entropy(logits):
        shares = ops.softmax(logits, axis=-1)
        # ln Σ exp x = max x − ln max softmax(x): no share that can be zero is used.
        log_sum = ops.max(logits, axis=-1) - ops.log(ops.max(shares, axis=-1))
        told = ops.take_along_axis(logits, ids[..., None], axis=-1)

        def grad(upstream):
            wanted = ops.one_hot(ids, logits.shape[-1], dtype=logits.dtype)
            return upstream[..., None] * (shares - wanted)

        return log_sum - ops.squeeze(told, axis=-1), grad

    return cross_entropy(logits)


def generator_loss(fake_logits: Tensor) -> Tensor:
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


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The logistic loss of a discriminator, −ln σ(D(real)) − ln(1 − σ(D(fake))).

    Args:
        real_logits: float `(batch,)`, of true pictures.
        fake_logits: float `(batch,)`, of generated ones.

    Returns:
        float32 scalar, the sum of the two means.
    """
    real, fake = (ops.cast(logits, "float32") for logits in (real_logits, fake_logits))
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def r1_penalty(gradients: Tensor) -> Tensor:
    """Half the squared norm of a discriminator's slope at true pictures.

    Its weight γ is 10 in StyleGAN2, which takes it every 16 steps with 16 times the
    weight; not published for ViT-VQGAN.

    Args:
        gradients: float `(batch, height, width, channels)`, ∂ ΣD(real) / ∂ real; of
            pictures in `[-1, 1]` for StyleGAN2's γ.

    Returns:
        float32 scalar, the mean over pictures.

    References:
        - [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), eq. 9
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), section 3.1
    """
    squares = ops.square(ops.cast(gradients, "float32"))
    return 0.5 * ops.mean(ops.sum(squares, axis=(1, 2, 3)))
