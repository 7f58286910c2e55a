"""Plans Parti's sizes on meshes, the paper's two layouts among them: a table.

    python benchmarks/plan_table.py

Takes a second and no accelerator: every figure is `keras_parti.mesh.plan`'s, for
batches of 8,192 pictures in mixed_bfloat16 on TPU v4, Adafactor, the insides of the
blocks computed again. Step and days are at the published peak rates, all communication
behind computation: no run reaches them, and their ratios are what they are for.
"""

import os

os.environ["KERAS_BACKEND"] = "numpy"

from keras_parti.evaluation.reports import markdown_table
from keras_parti.mesh.layouts import Layout
from keras_parti.mesh.plan import plan
from keras_parti.models.parti import Parti

GIB = 2**30
SPLIT = "two_d;length:model;memory:model"
# (preset, mesh, layout, whose). The paper, section 3: the smallest two data parallel;
# 3B 4-way model × 128-way data, the activations between the layers split as well; 20B
# on 16 × 64 devices, where 16 were stages of a pipeline, which is not built here.
ROWS = (
    ("parti_350m", "data:256", "data_parallel", "the paper's kind"),
    ("parti_750m", "data:256", "data_parallel", "the paper's kind"),
    ("parti_3b", "data:128;model:4", SPLIT, "the paper's"),
    ("parti_3b", "data:128;model:4", "two_d", ""),
    ("parti_3b", "data:32;model:4", SPLIT, ""),
    ("parti_20b", "data:64;model:16", SPLIT, "the paper's devices"),
    ("parti_20b", "data:64;model:16", "two_d", ""),
    ("parti_20b", "data:128;model:8", SPLIT, ""),
    ("parti_20b", "data:256;model:16", SPLIT, ""),
)


def main():
    """Prints the table."""
    header = (
        "size", "mesh", "layout", "devices", "parameters / device",
        "peak GiB / device",
        "sent GB / device and step", "step s", "days of 450,000 steps", "whose",
    )  # fmt: skip
    rows = []
    for preset, mesh, rules, whose in ROWS:
        layout = Layout(mesh, rules)
        found = plan(Parti.preset_config(preset), layout, 8192)
        fits = "" if found.fits else " (does not fit)"
        rows.append(
            (
                preset,
                mesh,
                rules,
                f"{layout.devices:,}",
                f"{found.parameters / 1e6:,.0f} M",
                f"{found.peak / GIB:.1f}{fits}",
                f"{sum(found.sent.values()) / 1e9:,.1f}",
                f"{found.fastest:.2f}",
                f"{found.days:.1f}",
                whose,
            )
        )
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
