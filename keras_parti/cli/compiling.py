"""`keras-parti plan --compile`: what XLA makes of a whole step, beside the plan."""

import json
import os
import subprocess
import sys
import time

GIB = 2**30


def print_compiled(args, layout, planned):
    """Compiles the step of a plan in another process, and prints both.

    Another process, because JAX fixes backend and number of devices at its import.

    Args:
        args: the command's.
        layout: `Layout`.
        planned: `keras_parti.mesh.plan.Plan`.

    Raises:
        ValueError: it cannot be compiled, with the last line that was said about it.
    """
    given = {
        "preset": args.preset,
        "mesh": args.mesh,
        "layout": args.layout,
        "batch": args.batch,
        "dtype": args.dtype,
        "rematerialise": planned.rematerialise,
    }
    # Code that will not run needs no optimising by LLVM, which takes two thirds of the
    # time; memory and collectives are the same without.
    flags = f"--xla_force_host_platform_device_count={layout.devices}"
    flags += " --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-m", "keras_parti.cli.compiling", json.dumps(given)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        },
        stdout=subprocess.PIPE,
        stderr=None if args.debug else subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        words = (done.stderr or "").strip().splitlines() or ["see above"]
        raise ValueError(f"The step was not compiled: {words[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    kept = planned.weights + planned.optimizer
    print(f"compiled by XLA in {found['seconds']:.0f} s\n")
    print(f"{'a device':34}{'XLA':>12}{'plan':>12}")
    for words, value, expected in (
        ("weights, Adafactor's state, ids", found["arguments"], kept),
        ("beside them", found["temporary"], planned.peak - kept),
        ("peak memory", found["arguments"] + found["temporary"], planned.peak),
    ):
        print(f"{words:34}{value / GIB:>8.3g} GiB{expected / GIB:>8.3g} GiB")
    print("\nsent by a device in a step")
    for kind, axes, row in found["collectives"]:
        words = f"{row['count']:,} {kind} over {axes or 'itself'}"
        print(f"{words:34}{row['sent'] / 1e9:>9.4g} GB")
    for axis, sent in planned.sent.items():
        print(f"{'the plan, over ' + axis:34}{'':12}{sent / 1e9:>9.4g} GB")


def main():
    """Compiles a step described in JSON; prints what XLA says of it as JSON."""
    from keras_parti.mesh.ahead import ScannedStep
    from keras_parti.mesh.hlo import collectives
    from keras_parti.mesh.layouts import Layout
    from keras_parti.models import Parti

    given = json.loads(sys.argv[1])
    config = Parti.preset_config(given["preset"])
    layout = Layout(given["mesh"], given["layout"])
    options = (given["batch"], given["dtype"], given["rematerialise"])
    begun = time.perf_counter()
    compiled = ScannedStep(config, layout, *options).compile()
    seconds = time.perf_counter() - begun
    sizes = compiled.memory_analysis()
    found = collectives(compiled.as_text(), layout)
    # What is returned takes the place of what was given, but for some bytes.
    returned = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    report = {
        "seconds": seconds,
        "arguments": sizes.argument_size_in_bytes,
        "temporary": sizes.temp_size_in_bytes + returned,
        "collectives": [[*key, row] for key, row in sorted(found.items())],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
