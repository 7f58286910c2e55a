"""What a run of many prompts gave: figures, a table, and a page to look at.

The page is one file that fetches nothing, pictures included. Of two runs it also asks
people which picture they prefer, blind, as the paper's raters were asked.
"""

import base64
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from keras_parti.evaluation.parti_prompts import Prompt
from keras_parti.evaluation.prompt_run import SCORES, read_records, read_run
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.web import read_page

PAGE = Path(__file__).with_name("report.html")
PLACE = '<script type="application/json" id="data">{}</script>'

# WebP of this quality takes a fifth of a PNG at 64 x 64 pixels, 1.3 kB, and shows no
# difference at the size of a page; 1,632 prompts with four pictures each are 12 MB.
QUALITY = 90

# Section 4.3 of the paper groups the challenges by how hard they are.
GROUPS = {
    "Standard": {"Basic", "Simple Detail"},
    "Intermediate": {"Fine-grained Detail", "Style & Format"},
}
OTHERS = "Challenging"

# The tables, by the figures they show, and what stands over their first columns.
KINDS = {
    "all": "",
    "groups": "group of challenges",
    "categories": "category",
    "challenges": "challenge",
}


def write_prompt_report(
    out: str | os.PathLike,
    prompts: Sequence[Prompt],
    num_samples: int,
    *,
    against: str | os.PathLike | None = None,
    keep: int = 4,
    note: str = "",
) -> dict[str, Any]:
    """Writes `results.json`, `table.md` and `report.html` into a run's folder.

    Args:
        out: path of the folder of `draw_prompts`.
        prompts: list of `Prompt`, those of the run.
        num_samples: int. Pictures of a prompt that were wanted.
        against: path of another run of the same prompts, to compare with, or None.
        keep: int. The best pictures of a prompt that the page holds.
        note: str. What the page says of the run, above all.

    Returns:
        The content of `results.json`.

    Raises:
        ValueError: the other run is of other prompts, or a folder holds no picture.
        FileNotFoundError: a folder holds no run.
    """
    folders = [Path(out), *([Path(against)] if against else [])]
    runs = [read_run(folder) for folder in folders]
    if len({run["prompts"] for run in runs}) > 1:
        raise ValueError(f"{against} is a run of other prompts than {out}.")
    drawn = [read_records(folder) for folder in folders]
    for folder, records in zip(folders, drawn, strict=True):
        if not records:
            raise ValueError(f"{folder} holds no picture.")
    results = {"run": runs[0], **_figures(drawn[0], prompts, num_samples)}
    write_report(out, results, _table(results))
    names = _names(runs, folders)
    page = {
        "title": f"{len(prompts):,} prompts, drawn by {' and '.join(names)}",
        "note": note,
        "prompts": [prompt._asdict() for prompt in prompts],
        "runs": [
            {
                "name": name,
                "id": hashlib.sha256(json.dumps(run).encode()).hexdigest()[:16],
                "about": _about(run, _figures(records, prompts, num_samples)),
                "score": SCORES[run["score"]][1],
                **_pictures(folder, records, keep),
            }
            for name, run, folder, records in zip(
                names, runs, folders, drawn, strict=True
            )
        ],
    }
    text = json.dumps(page, ensure_ascii=True).replace("<", "\\u003c")
    html = read_page(PAGE).replace(PLACE, PLACE.replace("{}", text))
    Path(out, "report.html").write_text(html, encoding="utf-8")
    return results


def group_of(challenge):
    """Returns the paper's group of a challenge: how hard its prompts are."""
    found = [name for name, members in GROUPS.items() if challenge in members]
    return found[0] if found else OTHERS


def _figures(records, prompts, num_samples):
    seconds = sum(record["seconds"] for record in records)
    return {
        "prompts": len(prompts),
        "pictures": len(records),
        "wanted": len(prompts) * num_samples,
        "seconds": seconds,
        "pictures_per_second": len(records) / max(seconds, 1e-9),
        "peak_memory": max(record["memory"] for record in records),
        "truncated_prompts": len({r["index"] for r in records if r["truncated"]}),
        "all": _by(records, lambda _: "all prompts"),
        "groups": _by(records, lambda record: group_of(record["challenge"])),
        "categories": _by(records, lambda record: record["category"]),
        "challenges": _by(records, lambda record: record["challenge"]),
    }


def _by(records, key):
    values = {}
    for record in records:
        of_prompt = values.setdefault(key(record), {})
        of_prompt.setdefault(record["index"], []).append(record["score"])
    return {
        name: {
            "prompts": len(scores),
            "pictures": sum(map(len, scores.values())),
            "score": float(np.mean([np.mean(s) for s in scores.values()])),
            "best_score": float(np.mean([max(s) for s in scores.values()])),
        }
        for name, scores in sorted(values.items())
    }


def _table(results):
    name, meaning = SCORES[results["run"]["score"]]
    words = [
        f"{results['pictures']:,} of {results['wanted']:,} pictures of "
        f"{results['prompts']:,} prompts in {_duration(results['seconds'])}: "
        f"{results['pictures_per_second']:.2f} a second in a process that took at most "
        f"{results['peak_memory'] / 1e9:.2f} GB. {results['truncated_prompts']} "
        "prompts were longer than the model reads.",
        f"{meaning} Means over prompts: of all pictures, and of the best of each.",
    ]
    for kind, title in KINDS.items():
        rows = [
            [
                name,
                *(str(at[count]) for count in ("prompts", "pictures")),
                *(f"{at[score]:.3f}" for score in ("score", "best_score")),
            ]
            for name, at in results[kind].items()
        ]
        header = [title, "prompts", "pictures", f"mean {name}", "of the best"]
        words.append(markdown_table(header, rows))
    return "\n\n".join(words)


def _about(run, figures):
    options = run.get("options", {})
    score = figures["all"]["all prompts"]["best_score"]
    return [
        ["model", str(run.get("model", ""))],
        ["pictures", f"{figures['pictures']:,} of {figures['wanted']:,}"],
        [f"mean {SCORES[run['score']][0]} of the best", f"{score:.3f}"],
        ["time of drawing", _duration(figures["seconds"])],
        ["pictures a second", f"{figures['pictures_per_second']:.2f}"],
        ["memory of the process", f"{figures['peak_memory'] / 1e9:.2f} GB"],
        *([name.replace("_", " "), f"{value:g}"] for name, value in options.items()),
    ]


def _duration(seconds):
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _names(runs, folders):
    names = [str(run.get("model", "an unnamed model")) for run in runs]
    return names if len(set(names)) == len(names) else [str(f) for f in folders]


def _pictures(folder, records, keep):
    """Of each prompt, by its index: all scores, and the first pictures; best first."""
    by_prompt = {}
    for record in records:
        by_prompt.setdefault(record["index"], []).append(record)
    scores, shown = {}, {}
    for index, some in tqdm(
        by_prompt.items(), desc="report", unit="prompt", disable=None
    ):
        some = sorted(some, key=lambda record: (-record["score"], record["seed"]))
        scores[index] = [[record["seed"], round(record["score"], 4)] for record in some]
        shown[index] = [
            _encoded(folder / "pictures" / record["file"]) for record in some[:keep]
        ]
    return {"scores": scores, "shown": shown}


def _encoded(path):
    buffer = io.BytesIO()
    with Image.open(path, formats=["PNG"]) as picture:
        picture.convert("RGB").save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
