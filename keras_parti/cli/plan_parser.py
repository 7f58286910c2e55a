"""The arguments of `keras-parti plan`, and those of a mesh that trainings share."""

from keras_parti import presets
from keras_parti.cli.options import add_command, add_preset, integer, option, required
from keras_parti.mesh.accelerators import ACCELERATORS

MESH = "names and sizes of the mesh's axes, such as 'data:64;model:16'"
LAYOUT = (
    "what is split over which axis, such as 'batch:data;heads:model;mlp:model', or "
    "data_parallel, model_parallel, two_d"
)


def add_plan(commands):
    """Adds `plan`."""
    command = add_command(
        commands,
        "plan",
        "plan:plan",
        "what training a Parti on a mesh of devices takes",
        "Prints memory, operations, communication and days of a run on a mesh, without "
        "a device of it: from the sizes, the layout, and what vendors publish.",
        "keras-parti plan --preset parti_3b --mesh 'data:128;model:4' --layout two_d\n"
        "keras-parti plan --preset parti_20b --mesh 'data:64;model:16' --search",
    )
    add_preset(command, presets.PARTI)
    required(command, "--mesh", "SHAPE", MESH)
    option(command, "--layout", "RULES", LAYOUT, default="two_d")
    option(command, "--batch", "N", "pictures a step, over all devices; 8192 is the "
           "paper's", integer(1), 8192)  # fmt: skip
    command.add_argument(
        "--device",
        choices=list(ACCELERATORS),
        default="tpu_v4",
        help="the kind of device (default tpu_v4)",
    )
    command.add_argument(
        "--dtype",
        choices=["float32", "mixed_bfloat16"],
        default="mixed_bfloat16",
        help="of the computation (default mixed_bfloat16)",
    )
    command.add_argument(
        "--keep-activations",
        action="store_true",
        help="plan without rematerialisation: more memory, less time",
    )
    command.add_argument(
        "--search",
        action="store_true",
        help="list the layouts of as many devices that fit, the fastest first",
    )
    command.add_argument(
        "--lower",
        action="store_true",
        help="build the step's Mesh-TensorFlow graph for a pod of TPUs that is only "
        "described, and count its slices and collectives; of parti_20b that takes "
        "minutes",
    )
    command.add_argument(
        "--compile",
        action="store_true",
        help="compile the whole step with JAX for as many virtual devices, from shapes "
        "alone, and show the memory and the collectives that XLA finds; needs jax",
    )
    command.set_defaults(needs_tensorflow=False)


def add_mesh(command):
    """Adds `--mesh SHAPE --layout RULES` to a training."""
    option(command, "--mesh", "SHAPE", "split the model over a mesh: " + MESH)
    option(command, "--layout", "RULES", LAYOUT)
