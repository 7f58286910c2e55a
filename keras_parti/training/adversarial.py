"""A generator of pictures and its discriminator, trained as one Keras model."""

import contextlib
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_parti import losses
from keras_parti.models.perceptual_weights import HOW_TO_GET


@dataclasses.dataclass(frozen=True)
class PlayersConfig:
    """What decides the variables of a training, so that a run is resumed as it was."""

    generator: Any
    discriminator: Any
    averaged: bool


class AdversarialTraining(keras.Model):
    """Trains a generator on pictures, and a discriminator beside it, in one step.

    Both players are moved from the same forward pass; the generator by

        vq + l2 + 0.1 · laplace + 0.1 · perceptual + 0.1 · adversarial

    and the discriminator by the logistic loss and R1. A term whose network is not
    given, or whose output the generator has not, is left out. On several replicas, or
    with a batch taken in parts, the result is that of one device and one part: all
    terms are means over rows, and rows that know of each other are consecutive. The
    number of rows must be a multiple of replicas × parts × the discriminator's group.

    Args:
        generator: `ConfigModel` that turns inputs into a dict of `images` in `[0, 1]`
            and perhaps `laplace`, such as `ViTVQGAN`; its `losses` are the term vq.
        loss_weights: dict of some of `l2`, `laplace`, `perceptual` and `adversarial`;
            None, or a term left out, for the paper's weight.
        discriminator: `Discriminator`, or None for no adversarial term.
        perceptual: `Perceptual`, or None for no perceptual term.
        log_scale_floor: float or None. See `keras_parti.losses.LogitLaplace`.
        adversarial_start: int. Steps before which neither the discriminator trains nor
            its term counts. The paper gives none; a reimplementer who asked its author
            starts at 0.
        r1_weight: float. γ of the R1 penalty; 10 in StyleGAN2 and in Google's MaskGIT,
            not published for ViT-VQGAN.
        r1_interval: int. R1 is taken in every so many-th step, with so many times its
            weight; 16 in StyleGAN2.
        accumulation: int. Parts that a batch is taken in, to need less memory.
        **kwargs: `name` of `keras.Model`.

    Raises:
        ValueError: where a weight is given for a term that cannot be had.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3.3
        - [Karras et al., 2020](https://arxiv.org/abs/1912.04958), section 3.1
    """

    def __init__(
        self,
        generator,
        loss_weights=None,
        discriminator=None,
        perceptual=None,
        log_scale_floor=None,
        adversarial_start=0,
        r1_weight=10.0,
        r1_interval=16,
        accumulation=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("r1_interval", r1_interval),
            ("accumulation", accumulation),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.generator = generator
        self.discriminator = discriminator
        # Hidden in a function, the network is no part of this model, nor its weights of
        # the checkpoints.
        self._distance = perceptual and (lambda *images: perceptual(*images))
        self.adversarial_start = adversarial_start
        self.r1_weight = r1_weight
        self.r1_interval = r1_interval
        self.accumulation = accumulation
        self.weights_of_terms = self._weights_of_terms(dict(loss_weights or {}))
        self._laplace = None
        if "laplace" in self.weights_of_terms:
            epsilon = generator.config.laplace_epsilon
            self._laplace = losses.LogitLaplace(epsilon, log_scale_floor)
        names = ["loss", "vq", *self.weights_of_terms]
        names += ["discriminator", "r1"] if discriminator else []
        self.means = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    def _weights_of_terms(self, given):
        available = {
            "l2": True,
            "laplace": getattr(self.generator.config, "output", "") == "logit_laplace",
            "perceptual": self._distance is not None,
            "adversarial": self.discriminator is not None,
        }
        for name, weight in given.items():
            if name not in available:
                raise ValueError(
                    f"`loss_weights` has {', '.join(available)}. Received: {name!r}"
                )
            if weight < 0:
                raise ValueError(
                    f"`loss_weights` must not be negative. Received: {name}={weight}"
                )
        if given.get("perceptual") and not available["perceptual"]:
            raise ValueError(f"There is a weight but no network. {HOW_TO_GET}")
        if given.get("adversarial") and not available["adversarial"]:
            raise ValueError(
                "The adversarial term has a weight and needs a `discriminator`. "
                "Received: discriminator=None"
            )
        weights = {**losses.LOSS_WEIGHTS, **given}
        return {name: weights[name] for name, there in available.items() if there}

    def compile(self, optimizer, discriminator_optimizer=None):
        """Sets the optimisers of the two players; each has its own state.

        Args:
            optimizer: `keras.optimizers.Optimizer` of the generator.
            discriminator_optimizer: the discriminator's, needed where there is one.
        """
        # XLA's matrix products and convolutions are slower on CPUs than TensorFlow's.
        super().compile(optimizer=optimizer, jit_compile=False)
        self.discriminator_optimizer = discriminator_optimizer
        for player, variables in self.players:
            player.build(variables)
        self.config = PlayersConfig(
            self.generator.config,
            self.discriminator and self.discriminator.config,
            optimizer.use_ema,
        )

    @property
    def players(self):
        """Pairs of an optimiser and the variables that it moves."""
        players = [(self.optimizer, self.generator.trainable_variables)]
        if self.discriminator is not None:
            variables = self.discriminator.trainable_variables
            players.append((self.discriminator_optimizer, variables))
        return players

    def call(self, inputs, training=None):
        return self.generator(inputs, training=training)

    def train_step(self, data):
        inputs, targets, _ = keras.utils.unpack_x_y_sample_weight(data)
        gradients, values = self._accumulated(inputs, targets)
        for (optimizer, variables), moves in zip(self.players, gradients, strict=True):
            optimizer.apply(moves, variables)
        for name, value in values.items():
            self.means[name].update_state(*value)
        return self.get_metrics_result()

    def _accumulated(self, inputs, targets):
        """Returns gradients and terms of a batch, as means over its parts."""
        if self.accumulation == 1:
            return self._gradients(inputs, targets)
        parts = [
            tf.reshape(x, (self.accumulation, -1, *x.shape[1:]))
            for x in (inputs, targets)
        ]

        zeros = (
            [[tf.zeros(v.shape) for v in variables] for _, variables in self.players],
            {name: (tf.zeros(()), tf.zeros(())) for name in self.means},
        )

        def add(i, sums):
            part = self._gradients(*(x[i] for x in parts))
            return i + 1, tf.nest.map_structure(tf.add, sums, part)

        # A loop and not a list of parts, which TensorFlow would compute at the same
        # time, all their activations in memory.
        _, sums = tf.while_loop(
            lambda i, _: i < self.accumulation, add, (0, zeros), parallel_iterations=1
        )
        return tf.nest.map_structure(lambda x: x / self.accumulation, sums)

    def _gradients(self, inputs, targets):
        """Returns the gradients of both players, and terms as (value, weight)."""
        step = self.optimizer.iterations
        active = step >= self.adversarial_start
        with _tape(self.generator) as tape:
            outputs = self.generator(inputs, training=True)
            images = outputs["images"]
            terms = {"l2": tf.reduce_mean(tf.square(images - targets))}
            if self._laplace:
                # Its `call`, since as a function it is divided by the replicas already.
                each = self._laplace.call(targets, outputs["laplace"])
                terms["laplace"] = tf.reduce_mean(each)
            if self._distance:
                terms["perceptual"] = tf.reduce_mean(self._distance(images, targets))
            if self.discriminator is not None:
                terms["adversarial"] = tf.cond(
                    active,
                    lambda: losses.generator_loss(self.discriminator(images)),
                    lambda: tf.zeros(()),
                )
            terms["vq"] = tf.add_n([tf.zeros(()), *self.generator.losses])
            loss = terms["vq"] + sum(
                weight * terms[name] for name, weight in self.weights_of_terms.items()
            )
        gradients = [_slopes(tape, loss, self.generator)]
        terms["loss"] = loss
        values = {name: (term, tf.ones(())) for name, term in terms.items()}
        if self.discriminator is not None:
            moves, terms = self._discriminator_gradients(
                targets, tf.stop_gradient(images), step, active
            )
            gradients.append(moves)
            values |= terms
        return gradients, values

    def _discriminator_gradients(self, real, fake, step, active):
        variables = self.discriminator.trainable_variables

        def nothing():
            return [tf.zeros(()), *(tf.zeros(v.shape) for v in variables)]

        def logistic():
            with _tape(self.discriminator) as tape:
                loss = losses.discriminator_loss(
                    self.discriminator(real), self.discriminator(fake)
                )
            return [loss, *_slopes(tape, loss, self.discriminator)]

        def penalty():
            with _tape(self.discriminator) as tape:
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(real)
                    logits = tf.reduce_sum(self.discriminator(real))
                r1 = losses.r1_penalty(inner.gradient(logits, real))
                loss = self.r1_weight * self.r1_interval * r1
            return [r1, *_slopes(tape, loss, self.discriminator)]

        due = tf.logical_and(active, tf.equal(step % self.r1_interval, 0))
        loss, *slopes = tf.cond(active, logistic, nothing)
        r1, *steepness = tf.cond(due, penalty, nothing)
        return [a + b for a, b in zip(slopes, steepness, strict=True)], {
            "discriminator": (loss, tf.cast(active, "float32")),
            "r1": (r1, tf.cast(due, "float32")),
        }

    def save_dir(self, path):
        """Writes the generator as `ConfigModel.save_dir` does."""
        self.generator.save_dir(path)


@contextlib.contextmanager
def _tape(model):
    """A tape that sees the trainable variables of one player only."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in model.trainable_variables])
        yield tape


def _slopes(tape, loss, model):
    """Returns a player's gradients, ready to be summed over the replicas."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    variables = [variable.value for variable in model.trainable_variables]
    gradients = tape.gradient(
        loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    # Dense, since those of a codebook, read row by row, are sparse.
    return [tf.convert_to_tensor(gradient) / replicas for gradient in gradients]
