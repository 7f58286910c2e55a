"""Parti lowered for a pod of TPUs that is described, not there.

Mesh-TensorFlow's `SimdMeshImpl` makes one program that all cores run, with a slice of
each variable on each of them. Its graph can be built without a TPU from a topology's
description: how many devices lie along x, y and z. What this proves is that the graph
exists and what is in it: every slice, every collective. That a TPU compiles and runs it
is not proved here.
"""

import collections
import functools

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import gen_resource_variable_ops
from tensorflow.python.tpu.topology import Topology

from keras_parti.mesh.compat import mtf, tf1
from keras_parti.mesh.step import StepGraph

# Kinds of operations that send something to other devices.
COLLECTIVES = ("CrossReplicaSum", "AllToAll", "CollectivePermute")

HOST = 4  # devices of one host


def lower(config, layout, batch_size, dtype="mixed_bfloat16", rematerialise=True):
    """Lowers a training step, Adafactor included, for a pod of `layout.devices`.

    Args:
        config: `PartiConfig`.
        layout: `keras_parti.mesh.Layout`.
        batch_size: int. Pictures of a step, over all devices.
        dtype: str, see `PartiGraph`.
        rematerialise: bool, see `PartiGraph`.

    Returns:
        Dict of `operations`, int, of the program; `variable_bytes`, int, on each
        device; `slices`, dict from the name of an array to the shape and the dtype of a
        slice; and `collectives`, dict from (kind, axes of the mesh, dtype) to how many
        there are and to the bytes that they sum or pass on.

    Raises:
        ValueError: the layout does not fit the config or the batch.
    """
    with tf.Graph().as_default() as graph:
        step = StepGraph(
            config, layout, batch_size, dtype=dtype, rematerialise=rematerialise
        )
        implementation = _Pod(layout)
        lowering = mtf.Lowering(
            step.graph, {step.mesh: implementation}, autostack=False
        )
        # The loss is the same on all devices, and so is the norm.
        fetched = [lowering.tensors[x].to_laid_out_tensor().one_slice
                   for x in (step.loss, step.norm)]  # fmt: skip
        fetched = [tensor.op for tensor in fetched]
        fetched += [lowering.lowered_operation(update) for update in step.updates]
    operations = _needed(fetched)
    slices = implementation.slices
    return {
        "operations": len(operations),
        "variable_bytes": sum(
            int(np.prod(shape)) * np.dtype(kind).itemsize
            for shape, kind in slices.values()
        ),
        "slices": slices,
        "collectives": _collectives(operations, layout, graph),
    }


def describe_topology(devices):
    """Describes a torus of TPUs, as near to a cube as powers of two allow.

    Args:
        devices: int. How many there are.

    Returns:
        `Topology`, of hosts of four devices where they are at least four.

    Raises:
        ValueError: `devices` is not a power of two.
    """
    if devices < 1 or devices & (devices - 1):
        raise ValueError(
            f"A pod's devices must be a power of two. Received: {devices} devices"
        )
    sides = [1, 1, 1]
    for i in range(devices.bit_length() - 1):
        sides[i % 3] *= 2
    places = np.argwhere(np.ones((*sides, 1)))  # (devices, 4): x, y, z, core
    return Topology(
        mesh_shape=[*sides, 1],
        device_coordinates=places.reshape(-1, min(HOST, devices), 4),
    )


class _Pod(mtf.simd_mesh_impl.SimdMeshImpl):
    """`SimdMeshImpl` over a described topology, quick for a thousand devices.

    Mesh-TensorFlow gives each variable a master copy on one host, and operations that
    cut and join it: of Parti's 20B this is more than a host holds, and a million
    operations. Here a variable is one slice, of which every device has its own.
    """

    def __init__(self, layout):
        topology = describe_topology(layout.devices)
        assignment = tf1.tpu.experimental.DeviceAssignment.build(
            topology, num_replicas=layout.devices
        )
        super().__init__(
            mtf.Shape([mtf.Dimension(*axis) for axis in layout.axes.items()]),
            mtf.convert_to_layout_rules(layout.splits.items()),
            device_assignment=assignment,
        )
        self.slices, self._begins = {}, {}
        # Asked for by every collective, and the same for all over the same axes.
        groups = functools.cache(super()._create_group_assignment)
        self._create_group_assignment = lambda axes: groups(tuple(axes))

    def LaidOutVariable(self, variable, implementation):
        """Makes the slice of a variable that the program of a device sees."""
        shape = self.slice_shape(variable.shape)
        self.slices[variable.name] = (tuple(shape), variable.slice_dtype.as_numpy_dtype)
        return _Slice(variable, shape, self)

    def slice(self, tensor, shape):
        """Cuts a device's part out of a tensor that all have."""
        if self.tensor_layout(shape).is_fully_replicated:
            return self.LaidOutTensor([tensor])
        key = tuple(shape.to_integer_list), tuple(shape.dimension_names)
        if key not in self._begins:
            begins = [self.slice_begin(shape, i) for i in range(self.size)]
            self._begins[key] = np.array(begins, "int32")
        begin = tf.gather(self._begins[key], self.pnum_tensor)
        return self.LaidOutTensor([tf.slice(tensor, begin, self.slice_shape(shape))])


class _Slice:
    """One variable as every device sees it: its own slice, of a name all share."""

    def __init__(self, variable, shape, implementation):
        self.dtype = variable.slice_dtype
        self.handle = gen_resource_variable_ops.var_handle_op(
            self.dtype, shape, shared_name=f"{variable.name}_slice"
        )
        value = gen_resource_variable_ops.read_variable_op(self.handle, self.dtype)
        value.set_shape(shape)
        self.laid_out_tensor = implementation.LaidOutTensor([value])

    def assign_to_slices(self, assign, values):
        (value,) = values
        value = tf.cast(value, self.dtype)
        return gen_resource_variable_ops.assign_variable_op(self.handle, value)


def _needed(fetched):
    """Returns the operations that what is fetched depends on."""
    found, waiting = set(), list(fetched)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += operation.control_inputs
    return found


def _collectives(operations, layout, graph):
    found = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for operation in operations:
        if operation.type not in COLLECTIVES:
            continue
        value = operation.outputs[0]
        groups = tf.get_static_value(operation.inputs[1])
        axes = layout.between(groups[0].tolist())
        row = found[operation.type, axes, value.dtype.name]
        row["count"] += 1
        row["bytes"] += value.shape.num_elements() * value.dtype.size
    return dict(found)
