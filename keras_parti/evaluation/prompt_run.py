"""Draws pictures of many prompts into a folder, so that a kill costs one batch.

    out/run.json                    what decides the pictures
    out/pictures/0042-7.png         prompt 42, seed 7; its record is text in the file

A picture and its record are one file, which is there whole or not at all, so that
nothing is lost, drawn twice or counted twice, however many processes share the folder
and whenever they are killed.
"""

import hashlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from keras_parti.evaluation.parti_prompts import Prompt
from keras_parti.files import written_whole

ROWS = 16  # prompts drawn together: where the rate of the shipped model is highest
KEY = "keras_parti"  # of the PNG text that holds the record, as JSON

# What a model ranks its own pictures of a prompt by: in tables, and on pages.
SCORES = {
    "coca": (
        "CoCa score",
        "The score is the cosine that the model's CoCa finds between picture and "
        "prompt, in [-1, 1]: what it chooses the best picture by. It compares runs "
        "with the same CoCa only, and whoever chooses by it is flattered by it.",
    ),
    "likelihood": (
        "log-likelihood",
        "The score is the mean log-likelihood of an image token, in nats: what the "
        "model, which has no CoCa, chooses the best picture by. It compares no prompts "
        "and no models, and is no measure of quality.",
    ),
}


def draw_prompts(
    generate: Callable[..., dict[str, np.ndarray]],
    prompts: Sequence[Prompt],
    out: str | os.PathLike,
    *,
    num_samples: int = 1,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    score: str = "likelihood",
    **identity: Any,
) -> int:
    """Draws what is missing of the pictures of some prompts.

    The j-th picture of every prompt has the seed `seed + j`, so that
    `keras-parti generate PROMPT --seed S` draws it again.

    Args:
        generate: callable as `TextToImage.generate`: `(prompts, seed=)` to a dict of
            `images`, uint8 `(prompts, 1, height, width, 3)`; `score`, `(prompts, 1)`;
            `truncated`, `(prompts,)`.
        prompts: list of `Prompt`.
        out: path of the folder.
        num_samples: int. Pictures of a prompt. A folder may be given more later.
        seed: int.
        shard: pair of ints I and N: this process draws prompts I, I + N, I + 2N, ...
        score: str, one of `SCORES`: what the `score` of `generate` is.
        **identity: plain values that decide the pictures besides: the model, the
            sampling options. A folder takes pictures of one identity only.

    Returns:
        int. Pictures drawn now.

    Raises:
        ValueError: the folder holds another run, the shard or the score is none, or
            `generate` returned other shapes.
    """
    if score not in SCORES:
        raise ValueError(f"`score` must be one of {list(SCORES)}. Received: {score!r}")
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"`shard` must be I/N with 0 <= I < N. Received: {shard}")
    out = Path(out)
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    texts = "\n".join(prompt.text for prompt in prompts)
    digest = hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()
    _check_run(out, {"prompts": digest, "score": score, **identity})
    mine = prompts[part::parts]
    seeds = range(seed, seed + num_samples)
    done = {(r["index"], r["seed"]) for r in read_records(out)}
    # Seed by seed, so that a run that was cut short has seen all prompts equally.
    missing = [[p for p in mine if (p.index, s) not in done] for s in seeds]
    count, wanted = sum(map(len, missing)), len(mine) * num_samples
    with tqdm(
        total=wanted, initial=wanted - count, unit="picture", disable=None
    ) as bar:
        for each, remaining in zip(seeds, missing, strict=True):
            for start in range(0, len(remaining), ROWS):
                some = remaining[start : start + ROWS]
                _draw(generate, some, each, out / "pictures")
                bar.update(len(some))
    return count


def read_records(out):
    """Reads what is known of the pictures in a folder.

    Returns:
        A list of dicts, by prompt and seed: `index`, `prompt`, `category`,
        `challenge`, `seed`, `score`, `truncated`, `seconds` (its share of its batch),
        `memory` (bytes that the drawing process had at most until then), `file`.
        Files that are damaged are left out, and drawn again by `draw_prompts`.
    """
    records = []
    for path in sorted(Path(out, "pictures").glob("[0-9]*.png")):
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                record = json.loads(picture.info[KEY])
        except (OSError, ValueError, KeyError, SyntaxError):
            continue
        records.append({**record, "file": path.name})
    return sorted(records, key=lambda record: (record["index"], record["seed"]))


def read_run(out):
    """Reads what decided the pictures of a folder: `run.json`.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    path = Path(out, "run.json")
    if not path.is_file():
        raise FileNotFoundError(f"{out} holds no run: there is no {path}.")
    return json.loads(path.read_text(encoding="utf-8"))


def _draw(generate, prompts, seed, folder):
    begun = time.perf_counter()
    drawn = generate([prompt.text for prompt in prompts], seed=seed)
    seconds = (time.perf_counter() - begun) / len(prompts)
    images, scores = np.asarray(drawn["images"]), np.asarray(drawn["score"])
    if images.ndim != 5 or images.shape[:2] != (len(prompts), 1):
        raise ValueError(
            f"`generate` was asked for 1 picture each of {len(prompts)} prompts. "
            f"Received: shape {images.shape}"
        )
    for row, prompt in enumerate(prompts):
        record = {
            "index": prompt.index,
            "prompt": prompt.text,
            "category": prompt.category,
            "challenge": prompt.challenge,
            "seed": seed,
            "score": float(scores[row, 0]),
            "truncated": bool(drawn["truncated"][row]),
            "seconds": seconds,
            "memory": _peak_memory(),
        }
        text, buffer = PngInfo(), io.BytesIO()
        text.add_text(KEY, json.dumps(record))
        Image.fromarray(images[row, 0]).save(buffer, "PNG", pnginfo=text)
        with written_whole(folder / f"{prompt.index:04d}-{seed}.png") as part:
            part.write_bytes(buffer.getvalue())


def _peak_memory():
    unit = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _check_run(out, run):
    try:
        before = read_run(out)
    except FileNotFoundError:
        text = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
        with written_whole(out / "run.json", shared=True) as part:
            part.write_bytes(text.encode("utf-8", "replace"))
        return
    for name in sorted(before.keys() | run.keys()):
        if before.get(name) != run.get(name):
            raise ValueError(
                f"{out} holds pictures of another run, with "
                f"{name}={before.get(name)!r}. Received: {name}={run.get(name)!r}. "
                "Choose another folder."
            )
