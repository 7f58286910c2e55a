"""Writes the figures of an evaluation: `results.json` for programs, `table.md`."""

import json
from pathlib import Path

import numpy as np


def write_report(out, results, table):
    """Writes `results.json` and `table.md` into a folder, which is made.

    Args:
        out: path of the folder.
        results: dict of plain numbers, strings, lists and dicts.
        table: str. Markdown.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    (out / "table.md").write_text(table + "\n", encoding="utf-8")


def quantiles(values):
    """Returns a dict of the values that 5 %, 50 % and 95 % of some are below."""
    return {f"{share} %": float(np.percentile(values, share)) for share in (5, 50, 95)}


def markdown_table(header, rows):
    """Returns a Markdown table of strings; the first column left, the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
