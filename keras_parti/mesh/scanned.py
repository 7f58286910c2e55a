"""A Parti whose equal blocks are one block in a loop, for JAX and many devices.

Of 80 blocks that are written out XLA compiles each; of a loop it compiles one. The
block is that of the Keras model: its weights on top of each other are what the loop
runs over, and one behind the other they are the model's own.
"""

import dataclasses
import itertools

import jax
import keras
from jax.sharding import NamedSharding, PartitionSpec
from keras import ops

from keras_parti.models import Parti


class ScannedParti(Parti):
    """Parti in which blocks of one kind are one layer, `Scanned`.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`, by which the activations between the blocks
            are split.
        mesh: `jax.sharding.Mesh` of that layout.
        rematerialise: bool. Whether the backward pass computes the insides of a block
            again, from its inputs.
        **kwargs: `name` and `dtype` of `keras.Model`.
    """

    def __init__(self, config, layout, mesh, rematerialise=True, **kwargs):
        kernels = [config.kernel_of(i) for i in range(config.decoder_layers)]
        runs = [(k, len(list(group))) for k, group in itertools.groupby(kernels)]
        windowed = tuple(i for i, (kernel, _) in enumerate(runs) if kernel is not None)
        one_of_each = dataclasses.replace(
            config,
            encoder_layers=1,
            decoder_layers=len(runs),
            window_layers=None if config.attention_kernel is None else windowed,
        )
        super().__init__(one_of_each, **kwargs)
        for blocks, counts, places in (
            (self.encoder, [config.encoder_layers], "memory"),
            (self.decoder, [count for _, count in runs], "length"),
        ):
            between, inside = (
                NamedSharding(mesh, PartitionSpec(*map(layout.splits.get, axes)))
                for axes in (("batch", places, "embed"), ("batch", None, "embed"))
            )
            templates = [blocks.pop() for _ in counts][::-1]
            blocks.extend(
                Scanned(template, count, between, inside, rematerialise)
                for template, count in zip(templates, counts, strict=True)
            )

    @property
    def scans(self):
        """The loops, a list of `Scanned`."""
        return [*self.encoder, *self.decoder]


class Scanned(keras.layers.Layer):
    """Blocks that differ in nothing but their weights, one behind the other.

    Args:
        template: a built block, `EncoderBlock` or `DecoderBlock`. Its own weights are
            not used.
        count: int. Number of blocks.
        between: `jax.sharding.Sharding` of what goes from block to block.
        inside: `jax.sharding.Sharding` of the same inside a block, where all places of
            a sequence are on each device: otherwise XLA moves the windows' rows from
            device to device, of parti_20b 214,528 times a step.
        rematerialise: bool, see `ScannedParti`.

    Call arguments:
        As of the block.
    """

    def __init__(self, template, count, between, inside, rematerialise):
        super().__init__(name=template.name, dtype=template.dtype_policy)
        # In a function, so that Keras does not take its variables for this layer's.
        self.template = lambda: template
        self.kernel_size = getattr(template, "kernel_size", None)
        self.between, self.inside = between, inside
        self.rematerialise = rematerialise
        for variable in template.trainable_variables:
            # Cast block by block, in the loop, and not all blocks before it.
            self._stack(variable, count, autocast=False)
        for variable in template.non_trainable_variables:
            self._stack(variable, count, trainable=False)
        self.built = True

    def _stack(self, variable, count, **options):
        self.add_weight(
            shape=(count, *variable.shape),
            initializer="zeros",
            dtype=variable.dtype,
            name=variable.path.replace("/", "_"),
            **options,
        )

    def call(self, inputs, *others, training=None, **masks):
        template = self.template()

        def block(x, state):
            # Kept for the backward pass as it comes, and gathered again in it.
            x = jax.lax.with_sharding_constraint(x, self.between)
            x = jax.lax.with_sharding_constraint(x, self.inside)
            x, seeds = template.stateless_call(
                *state, x, *others, training=training, **masks
            )
            return jax.lax.with_sharding_constraint(x, self.between), seeds

        if self.rematerialise:
            block = jax.checkpoint(block)
        states = [
            [ops.convert_to_tensor(v.value) for v in variables]
            for variables in (self.trainable_variables, self.non_trainable_variables)
        ]
        x = jax.lax.with_sharding_constraint(inputs, self.between)
        x, seeds = jax.lax.scan(block, x, states)
        for variable, value in zip(self.non_trainable_variables, seeds, strict=True):
            variable.assign(value)
        return x
