"""One step of training Parti on a mesh: its graph, on devices, with its state."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_parti.mesh.adafactor import MeshAdafactor
from keras_parti.mesh.compat import mtf, tf1
from keras_parti.mesh.layouts import Layout, axis_sizes
from keras_parti.mesh.parti import PartiGraph, ids_before
from keras_parti.mesh.variables import arrays_of, variables_of
from keras_parti.models import PartiConfig


class StepGraph:
    """The Mesh-TensorFlow graph of a training step, not on any devices yet.

    It is built in TensorFlow's default graph, with placeholders `inputs`.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`.
        batch_size: int. Pictures of a step, over all devices.
        dtype: str, see `PartiGraph`.
        rematerialise: bool, see `PartiGraph`.
        **optimizer: arguments of `MeshAdafactor`.

    Raises:
        ValueError: the layout does not fit the config or the batch.
    """

    def __init__(
        self,
        config,
        layout,
        batch_size,
        dtype="float32",
        rematerialise=False,
        **optimizer,
    ):
        layout.check(axis_sizes(config, batch_size))
        self.graph = mtf.Graph()
        self.mesh = mtf.Mesh(self.graph, "mesh")
        self.inputs = {
            "text_ids": tf1.placeholder(tf.int32, (batch_size, config.text_length)),
            "image_ids": tf1.placeholder(tf.int32, (batch_size, config.num_tokens)),
            "before_ids": tf1.placeholder(tf.int32, (batch_size, config.num_tokens)),
            "rate": tf1.placeholder(tf.float32, ()),
            "step": tf1.placeholder(tf.int32, ()),
        }
        step = mtf.import_tf_tensor(self.mesh, self.inputs["step"])
        self.parti = PartiGraph(
            config, self.mesh, layout, batch_size, dtype, rematerialise, step
        )
        self.logits = self._predict(training=True)
        self.test = self.parti.loss(self.logits, self.inputs["image_ids"])
        self.loss, self.accuracy = self.test
        variables = variables_of(config)
        self.gradients = mtf.gradients(
            [self.loss], [self.parti.variables[v.name] for v in variables]
        )
        adafactor = MeshAdafactor(
            self.parti, self.inputs["rate"], self.inputs["step"], **optimizer
        )
        self.updates, self.norm = adafactor.updates(variables, self.gradients)

    def add_evaluation(self):
        """Adds the logits, the loss and the accuracy without dropout."""
        if self.parti.changes_in_training:
            self.logits = self._predict(training=False)
            self.test = self.parti.loss(self.logits, self.inputs["image_ids"])

    def _predict(self, training):
        ids = (self.inputs["text_ids"], self.inputs["before_ids"])
        return self.parti.predict(*ids, training=training)


class MeshStep:
    """A training step of Parti on the devices of this machine.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`.
        batch_size: int. Pictures of a step, over all devices.
        devices: list of str, as many as the mesh has. None: the GPUs, where there are
            enough, else as many virtual CPU devices.
        **options: more arguments of `StepGraph`.

    Example:
        >>> from keras_parti import Parti
        >>> from keras_parti.mesh import Layout, from_keras
        >>> model = Parti.from_preset("parti_tiny")
        >>> step = MeshStep(model.config, Layout("model:2", "model_parallel"), 4)
        >>> step.load(from_keras(model))
        >>> ids = {"text_ids": np.ones((4, 11)), "image_ids": np.ones((4, 9))}
        >>> sorted(step.train(ids, rate=1e-3))
        ['gradient_norm', 'loss', 'token_accuracy']
    """

    def __init__(
        self,
        config: PartiConfig,
        layout: Layout,
        batch_size: int,
        devices: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.config, self.layout = config, layout
        self.devices = devices or _devices(layout.devices)
        if len(self.devices) != layout.devices:
            raise ValueError(
                f"`devices` must be as many as the mesh {layout.mesh!r} has, "
                f"{layout.devices}. Received: {len(self.devices)} devices"
            )
        self.done = 0
        with tf.Graph().as_default() as graph:
            step = StepGraph(config, layout, batch_size, **options)
            step.add_evaluation()
            self._step = step
            implementation = mtf.placement_mesh_impl.PlacementMeshImpl(
                mtf.Shape([mtf.Dimension(*axis) for axis in layout.axes.items()]),
                mtf.convert_to_layout_rules(layout.splits.items()),
                self.devices,
            )
            # Our variables are stacked already.
            self._lowering = mtf.Lowering(
                step.graph, {step.mesh: implementation}, autostack=False
            )
            self._slices = self._collect(implementation)
            export = self._lowering.export_to_tf_tensor
            figures = (step.loss, step.accuracy, step.norm)
            updates = [self._lowering.lowered_operation(u) for u in step.updates]
            self._train = ([export(x) for x in figures], tf.group(updates))
            self._test = [export(x) for x in step.test]
            self._graph = graph
        cpus = sum("cpu" in device.lower() for device in self.devices)
        session = tf1.ConfigProto(device_count={"CPU": max(1, cpus)})
        # Of a small Parti on four devices the first step takes 1.1 s of CPU without
        # TensorFlow's rewriting of graphs and 7.2 s with it; later steps are as fast.
        session.graph_options.rewrite_options.disable_meta_optimizer = True
        self._session = tf1.Session(graph=graph, config=session)
        self._state = {array.name: array for array in arrays_of(config)}

    def load(self, arrays: dict[str, np.ndarray], done: int = 0) -> None:
        """Puts weights, and where given the optimiser's state, on the devices.

        All in one run of the session, because each run of other operations goes
        through the whole graph first.

        Args:
            arrays: dict from names of `variables.Array` to arrays of their shapes, as
                `from_keras` and `arrays` return them. The state of a variable that is
                not among them is zero.
            done: int. Steps that are behind them.
        """
        feed: dict[Any, np.ndarray] = {}
        for name, array in self._state.items():
            value = arrays.get(name)
            if value is None:
                value = np.zeros(array.shape, array.dtype)
            feed |= self._cut(array, np.asarray(value, array.dtype))
        initializers = [
            v.initializer for slices in self._slices.values() for v, _ in slices
        ]
        self._session.run(initializers, feed)
        self.done = done

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns a dict from names to arrays of weights and optimiser state."""
        slices = {
            name: {begin: variable for variable, begin in self._slices[name]}
            for name in self._state
        }
        parts = self._session.run(slices)
        return {name: self._joined(a, parts[name]) for name, a in self._state.items()}

    def train(self, ids: dict[str, np.ndarray], rate: float) -> dict[str, float]:
        """Runs a step of training.

        Args:
            ids: dict of `text_ids` and `image_ids`, int arrays, and where other ids
                than these are read before each, `before_ids`.
            rate: float. The learning rate.

        Returns:
            Dict of `loss` and `token_accuracy`, before the step, and `gradient_norm`,
            before clipping.
        """
        (loss, accuracy, norm), _ = self._run(self._train, ids, rate)
        self.done += 1
        return {"loss": loss, "token_accuracy": accuracy, "gradient_norm": norm}

    def evaluate(self, ids: dict[str, np.ndarray]) -> dict[str, float]:
        """Returns `loss` and `token_accuracy` of a batch, without dropout."""
        loss, accuracy = self._run(self._test, ids)
        return {"loss": loss, "token_accuracy": accuracy}

    def logits(self, ids: dict[str, np.ndarray]) -> np.ndarray:
        """Returns float32 logits `(batch, num_tokens, num_codes)`, without dropout."""
        logits = self._run(self._exported(self._step.logits), ids)
        return logits[..., : self.config.num_codes]

    def gradients(self, ids: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a dict from the names of variables to the loss' gradients by them."""
        variables = variables_of(self.config)
        exported = [self._exported(gradient) for gradient in self._step.gradients]
        values = self._run(exported, ids)
        return {
            variable.weight.name: value[tuple(map(slice, variable.weight.shape))]
            for variable, value in zip(variables, values, strict=True)
        }

    def _exported(self, tensor):
        with self._graph.as_default():
            return self._lowering.export_to_tf_tensor(tensor)

    def _run(self, fetched, ids, rate=0.0):
        before = ids_before(np.asarray(ids["image_ids"]), self.config.num_codes)
        values = {"before_ids": before, **ids, "rate": rate, "step": self.done}
        feed = {self._step.inputs[name]: value for name, value in values.items()}
        return self._session.run(fetched, feed)

    def _collect(self, implementation):
        """Returns for each variable its slices, and where in it each one begins."""
        found = {}
        for variable, laid_out in self._lowering.variables.items():
            slices = laid_out.laid_out_tensor.all_slices
            begins = [
                tuple(implementation.slice_begin(variable.shape, i))
                for i in range(len(slices))
            ]
            found[variable.name] = list(zip(slices, begins, strict=True))
        return found

    def _cut(self, array, value):
        """Returns what to feed for the initialisers of a variable's slices."""
        padded = np.zeros(self._padded(array), value.dtype)
        padded[tuple(map(slice, value.shape))] = value
        shape = self.layout.slice_shape(array.axes, array.shape)
        return {
            # What the initialiser assigns: feeding it adds nothing to the graph.
            variable.initializer.inputs[1]: padded[
                tuple(map(slice, begin, np.add(begin, shape)))
            ]
            for variable, begin in self._slices[array.name]
        }

    def _joined(self, array, parts):
        value = np.empty(self._padded(array), array.dtype)
        for begin, part in parts.items():
            value[tuple(map(slice, begin, np.add(begin, part.shape)))] = part
        return value[tuple(map(slice, array.shape))]

    def _padded(self, array):
        return [
            self.layout.padded(axis, size)
            for axis, size in zip(array.axes, array.shape, strict=True)
        ]


def _devices(count):
    gpus = len(tf.config.list_physical_devices("GPU"))
    kind = "gpu" if gpus >= count else "cpu"
    return [f"{kind}:{i}" for i in range(count)]
