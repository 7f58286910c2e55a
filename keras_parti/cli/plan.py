"""`keras-parti plan`: what training a Parti on a mesh takes."""

import os
import sys
from importlib.util import find_spec

from keras_parti.cli import quiet

# No tensor is computed, and of Keras' backends NumPy's is the quickest to import. It
# wants SciPy, which is no requirement of this library.
if "keras" not in sys.modules:
    if find_spec("scipy"):
        os.environ["KERAS_BACKEND"] = "numpy"
    elif find_spec("tensorflow"):
        quiet.import_tensorflow()

from keras_parti.mesh.accelerators import ACCELERATORS
from keras_parti.mesh.layouts import Layout
from keras_parti.mesh.plan import STEPS
from keras_parti.mesh.plan import plan as make_plan
from keras_parti.mesh.plan import search as search_layouts
from keras_parti.models.parti import Parti
from keras_parti.presets import PARTI

GIB = 2**30


def plan(args):
    """Prints a plan, or those that a search finds."""
    config = Parti.preset_config(args.preset)
    layout = Layout(args.mesh, args.layout)
    options = (args.batch, args.device, args.dtype)
    print(
        f"{args.preset} on {layout.devices} × {args.device}, batch {args.batch}, "
        f"{args.dtype}, Adafactor. Published peak figures: "
        f"{ACCELERATORS[args.device].source}.\n"
    )
    if args.search:
        _print_found(search_layouts(config, layout.devices, *options))
        return
    recomputed = not args.keep_activations
    if args.lower:
        _print_lowered(config, layout, args.batch, args.dtype, recomputed)
        return
    found = make_plan(config, layout, *options, recomputed)
    if args.compile:
        from keras_parti.cli.compiling import print_compiled

        print_compiled(args, layout, found)
        return
    for words, value, more in _rows(found, PARTI[args.preset].params):
        print(f"{words:34}{value:>12}  {more}".rstrip())


def _rows(found, params):
    layout, memory = found.layout, found.memory
    how = "recomputed", "kept"
    chosen, other = how if found.rematerialise else how[::-1]
    rules = "; ".join(f"{axis}:{over}" for axis, over in layout.splits.items())
    yield "mesh", "", layout.mesh
    yield "layout", "", rules or "none"
    yield "parameters a device", _count(found.parameters), f"of {_count(params)}"
    yield "  weights, float32", _gib(found.weights), ""
    yield "  Adafactor's state", _gib(found.optimizer), ""
    yield "  gradients", _gib(found.gradients), ""
    yield f"  activations, insides {chosen}", _gib(found.activations), ""
    yield f"  were they {other}", _gib(found.other_activations), ""
    fits = "fits" if found.fits else "does not fit"
    yield "peak memory a device", _gib(found.peak), f"of {_gib(memory)}: {fits}"
    seconds = f"{found.compute:.3g} s"
    yield "operations a device and step", _count(found.flops), seconds
    for axis, sent in found.sent.items():
        seconds = f"{found.communication[axis]:.3g} s"
        yield f"  sent over {axis}", f"{sent / 1e9:.3g} GB", seconds
    yield "a step, all overlapping", f"{found.fastest:.3g} s", ""
    yield "a step, nothing overlapping", f"{found.slowest:.3g} s", ""
    hours = found.days * 24 * layout.devices
    words = f"the published {STEPS:,} steps"
    yield words, f"{found.days:.3g} days", f"{hours:,.0f} device-hours, at best"


def _print_found(plans):
    if not plans:
        print("No layout of this many devices fits.")
        return
    header = ("mesh", "layout", "insides", "peak GiB", "step s", "days")
    rows = [
        (
            found.layout.mesh,
            found.layout.rules,
            "recomputed" if found.rematerialise else "kept",
            f"{found.peak / GIB:.1f}",
            f"{found.fastest:.3g}–{found.slowest:.3g}",
            f"{found.days:.3g}",
        )
        for found in plans
    ]
    rows.insert(0, header)
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        print("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)))


def _print_lowered(config, layout, batch_size, dtype, recomputed):
    from keras_parti.cli import quiet

    quiet.import_tensorflow()
    from keras_parti.mesh.simd import lower

    found = lower(config, layout, batch_size, dtype, recomputed)
    slices = len(found["slices"])
    print(f"operations of the program        {found['operations']:>14,}")
    print(f"arrays, each a slice a device    {slices:>14,}")
    print(f"bytes of the slices of a device  {found['variable_bytes']:>14,}")
    for (kind, axes, dtype), row in sorted(found["collectives"].items()):
        words = f"{kind} over {axes}, {dtype}"
        print(f"{words:33}{row['count']:>14,}  of {row['bytes'] / 1e9:.4g} GB")


def _gib(count):
    return f"{count / GIB:.3g} GiB" if count < 1000 * GIB else f"{count / GIB:.0f} GiB"


def _count(number):
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.4g} {name}"
    return f"{number:.0f}"
