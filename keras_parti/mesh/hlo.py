"""What a compiled module of XLA sends between devices, counted from its text."""

import collections
import math
import re

import numpy as np

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
INSTRUCTION = re.compile(rf" = (.+?) (while|call|conditional|{KINDS})(?:-start)?\((.*)")
CALLED = re.compile(r"(?:body|to_apply)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
SHAPE = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")


def collectives(text, layout):
    """Counts the collectives of a module, those in a loop as often as it runs.

    Args:
        text: str, what `jax.stages.Compiled.as_text` returns.
        layout: `keras_parti.mesh.Layout`, whose devices are numbered in the mesh's
            order.

    Returns:
        Dict from (kind, axes of the mesh) to a dict of `count`, int; `bytes`, of their
        results on a device; and `sent`, bytes that a device sends around a ring. A loop
        whose length XLA does not know counts once.
    """
    computations, entry = _computations(text)
    found = collections.defaultdict(lambda: {"count": 0, "bytes": 0, "sent": 0.0})

    def visit(name, times):
        for shape, kind, rest in computations.get(name, ()):
            if kind in ("while", "call", "conditional"):
                trips = TRIPS.search(rest)
                again = times * int(trips[1]) if trips else times
                for one, several in CALLED.findall(rest):
                    for called in re.findall(r"[\w.\-]+", one or several):
                        visit(called, again)
                continue
            group = _group(rest, layout.devices)
            row = found[kind, layout.between(group)]
            row["count"] += times
            row["bytes"] += times * _bytes(shape)
            row["sent"] += times * _bytes(shape) * _share(kind, len(group))

    visit(entry, 1)
    return dict(found)


def _computations(text):
    """Returns a dict from names to (shape, kind, rest) that matter, and the entry."""
    found, entry, name = {}, None, None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            entry = name if line.startswith("ENTRY") else entry
        elif match := INSTRUCTION.search(line):
            found.setdefault(name, []).append(match.groups())
    return found, entry


def _group(rest, devices):
    """Returns the devices of the first group."""
    if match := IOTA.search(rest):
        groups, size, dims, order = match.groups()
        ids = np.arange(devices).reshape([int(d) for d in dims.split(",")])
        if order:
            ids = ids.transpose([int(d) for d in order.split(",")])
        return ids.reshape(int(groups), int(size))[0].tolist()
    if match := LISTED.search(rest):
        return [int(d) for d in match[1].split(",")]
    return list(range(devices))


def _bytes(shape):
    return sum(
        math.prod(int(n) for n in sizes.split(",") if n)
        * (1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8)
        for kind, sizes in SHAPE.findall(shape)
    )


def _share(kind, size):
    """Returns what a device sends of a result around a ring of `size`."""
    return {
        "all-reduce": 2 * (size - 1) / size,
        "all-gather": (size - 1) / size,
        "reduce-scatter": size - 1,
        "all-to-all": (size - 1) / size,
        "collective-permute": 1,
    }[kind]
