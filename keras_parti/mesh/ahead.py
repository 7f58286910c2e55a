"""A whole training step of Parti on JAX, compiled ahead of time for many devices.

The step is that of the Keras model with our Adafactor: forward, backward, clipping,
update. XLA's partitioner compiles it from shapes alone: nothing is allocated or run.
"""

import dataclasses
import re
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from keras import ops

from keras_parti.losses import TokenCrossEntropy
from keras_parti.mesh.gspmd import patterns
from keras_parti.mesh.layouts import Layout, axis_sizes
from keras_parti.mesh.scanned import ScannedParti
from keras_parti.models import Parti, PartiConfig
from keras_parti.optimizers import Adafactor

CLIP = 4.0  # largest norm of all gradients (Parti, section 3)
SCALARS = 3  # of an optimiser's variables: steps, learning rate, norm


@dataclasses.dataclass(frozen=True)
class _Part:
    """Variables that an optimiser of their own updates: of the ends, or of a loop.

    Attributes:
        optimizer: `Adafactor`, built for `templates`.
        templates: list of variables, of one block where it is a loop.
        stacked: list of the model's variables: the same, or those of all blocks.
    """

    optimizer: Adafactor
    templates: list
    stacked: list

    @property
    def count(self):
        """Number of blocks as a shape: `()` where there is no loop."""
        return () if self.stacked[0] is self.templates[0] else self.stacked[0].shape[:1]

    def updated(self, weights, slots, gradients, step, rate):
        """Returns the next weights and slots, of each block as if it were alone."""

        def apply(weights, slots, gradients):
            weights, state = self.optimizer.stateless_apply(
                [step, rate, 0.0, *slots], gradients, weights
            )
            return weights, state[SCALARS:]

        return (jax.vmap(apply) if self.count else apply)(weights, slots, gradients)


class ScannedStep:
    """A training step of a Parti as a function of its state.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`.
        batch_size: int. Pictures of a step, over all devices.
        dtype: str, "float32" or "mixed_bfloat16".
        rematerialise: bool. Whether the insides of the blocks are computed again.

    Attributes:
        state: what a step leaves for the next, a dict of `weights` and `slots`, lists
            of lists, of `seeds`, a list, and of `step`; a `jax.ShapeDtypeStruct` each.
        inputs: dict of `text_ids` and `image_ids`, a `jax.ShapeDtypeStruct` each.

    Raises:
        ValueError: the layout does not fit the config or the batch, or JAX has fewer
            devices than the mesh.
    """

    def __init__(
        self,
        config: PartiConfig,
        layout: Layout,
        batch_size: int,
        dtype: str = "mixed_bfloat16",
        rematerialise: bool = True,
    ) -> None:
        layout.check(axis_sizes(config, batch_size))
        self.mesh = _mesh(layout)
        # Variables made in this scope have a shape and no value.
        with keras.StatelessScope(initialize_variables=False):
            self.model = ScannedParti(
                config, layout, self.mesh, rematerialise, dtype=dtype
            )
        self.parts = self._parts()
        batch = (layout.splits.get("batch"),)
        self.inputs = {
            "text_ids": self._shape((batch_size, config.text_length), "int32", batch),
            "image_ids": self._shape((batch_size, config.num_tokens), "int32", batch),
        }
        over = patterns(config, layout)
        weights, slots = [], []
        for part in self.parts:
            specs = [_spec(over, variable) for variable in part.templates]
            stack = (None,) * len(part.count)
            weights.append(
                [
                    self._shape(v.shape, v.dtype, stack + spec)
                    for v, spec in zip(part.stacked, specs, strict=True)
                ]
            )
            specs = [slot for spec in specs for slot in _slots(spec)]
            slots.append(
                [
                    self._shape((*part.count, *v.shape), v.dtype, stack + spec)
                    for v, spec in zip(
                        part.optimizer.variables[SCALARS:], specs, strict=True
                    )
                ]
            )
        seeds = self.model.non_trainable_variables
        self.state = {
            "weights": weights,
            "slots": slots,
            "seeds": [self._shape(v.shape, v.dtype) for v in seeds],
            "step": self._shape((), "int32"),
        }

    def __call__(self, state, ids, rate):
        """Returns the next state and the loss.

        Args:
            state: as the attribute, of arrays.
            ids: dict of `text_ids` and `image_ids`.
            rate: float. The learning rate.
        """
        # A scope around all others, at whose end Keras would make the values of the
        # model's variables.
        with keras.StatelessScope(initialize_variables=False):
            (loss, seeds), gradients = jax.value_and_grad(self._loss, has_aux=True)(
                state["weights"], state["seeds"], ids
            )
            squares = [ops.sum(ops.square(g)) for g in jax.tree.leaves(gradients)]
            scale = CLIP / ops.maximum(ops.sqrt(sum(squares)), CLIP)
            gradients = jax.tree.map(lambda g: g * scale, gradients)
            pairs = [
                part.updated(*values, state["step"], rate)
                for part, *values in zip(
                    self.parts,
                    state["weights"],
                    state["slots"],
                    gradients,
                    strict=True,
                )
            ]
        weights, slots = map(list, zip(*pairs, strict=True))
        step = state["step"] + 1
        return {"weights": weights, "slots": slots, "seeds": seeds, "step": step}, loss

    def begin(self, model: Parti, seed: int = 0) -> dict[str, Any]:
        """Returns a state of arrays, the weights a Keras model's, on the devices.

        Args:
            model: `Parti` of the config.
            seed: int. Seed of dropout.
        """
        blocks = [*model.encoder, *model.decoder]
        inside = {id(v) for block in blocks for v in block.trainable_variables}
        ends = [v for v in model.trainable_variables if id(v) not in inside]
        weights, done = [[np.asarray(v) for v in ends]], 0
        for part in self.parts[1:]:
            members = blocks[done : done + part.count[0]]
            lists = zip(*(b.trainable_variables for b in members), strict=True)
            weights.append([np.stack([np.asarray(v) for v in same]) for same in lists])
            done += len(members)
        random = np.random.default_rng(seed)
        state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.state)
        state["seeds"] = [random.integers(2**31, size=x.shape) for x in state["seeds"]]
        state["weights"] = weights
        return jax.tree.map(
            lambda value, x: jax.device_put(value.astype(x.dtype), x.sharding),
            state,
            self.state,
        )

    def compile(self) -> Any:
        """Returns the step as `jax.stages.Compiled`, its state updated in place."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        step = jax.jit(self, donate_argnums=0, out_shardings=(shardings, None))
        return step.lower(self.state, self.inputs, self._shape((), "float32")).compile()

    def _loss(self, weights, seeds, ids):
        values = {
            id(variable): value
            for part, values in zip(self.parts, weights, strict=True)
            for variable, value in zip(part.stacked, values, strict=True)
        }
        logits, seeds = self.model.stateless_call(
            [values[id(v)] for v in self.model.trainable_variables],
            seeds,
            ids,
            training=True,
        )
        return TokenCrossEntropy()(ids["image_ids"], logits), seeds

    def _parts(self):
        loops = self.model.scans
        looped = {id(v) for loop in loops for v in loop.trainable_variables}
        ends = [v for v in self.model.trainable_variables if id(v) not in looped]
        found = []
        for templates, stacked in (
            (ends, ends),
            *((x.template().trainable_variables, x.trainable_variables) for x in loops),
        ):
            optimizer = Adafactor(global_clipnorm=None)
            optimizer.exclude_from_weight_decay(
                [v for v in templates if len(v.shape) < 2]
            )
            with keras.StatelessScope(initialize_variables=False):
                optimizer.build(templates)
            found.append(_Part(optimizer, templates, stacked))
        return found

    def _shape(self, shape, dtype, spec=()):
        sharding = NamedSharding(self.mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)


def _mesh(layout):
    axes = layout.axes or {"whole": 1}
    devices = jax.devices()
    if len(devices) < layout.devices:
        raise ValueError(
            f"The mesh {layout.mesh!r} has {layout.devices} devices. "
            f"Received: {len(devices)} devices of JAX"
        )
    devices = np.array(devices[: layout.devices]).reshape(tuple(axes.values()))
    return Mesh(devices, tuple(axes))


def _spec(over, variable):
    (found,) = (
        axes for pattern, axes in over.items() if re.search(pattern, variable.path)
    )
    return found


def _slots(spec):
    """Returns over which axes lies what Adafactor keeps of a variable, in its order."""
    if len(spec) < 2:
        return [spec, (), spec]
    return [spec, spec[1:], spec[:-1], (*spec[:-2], spec[-1])]
