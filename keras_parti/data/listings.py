"""Captions in one file for many pictures, as public sets and people lay them out.

    captions.csv              a column `file`, all others captions
    captions.jsonl            a line {"file": ..., "caption": ...}, or "captions", a
                              list; as metadata.jsonl also "file_name" and "text"
    annotations/              MS-COCO: captions_val2014.json of val2014/*.jpg; both
                              splits, any year
    coco_val_captions.jsonl   Localized Narratives of these pictures, also named
                              coco_train_localized_narratives-00000-of-00004.jsonl

A picture that is listed and not there is skipped and named, as any that cannot be read.
"""

import csv
import json
import re
from pathlib import Path
from typing import NamedTuple

OWN_FILES = ("captions.csv", "captions.jsonl", "metadata.jsonl")
COCO = re.compile(r"captions_(train|val)(\d{4})\.json")
NARRATIVES = re.compile(r"coco_(train|val)_(?:captions|localized_narratives.*)\.jsonl")
SPLITS = {"train": "train", "val": "validation"}


class Listing(NamedTuple):
    """What is written of the pictures of a folder."""

    splits: dict | None  # split to paths below the folder; None: as folders say
    captions: dict  # path to list of str


def find_listing(root):
    """Reads what a folder says of its pictures.

    Localized Narratives take the place of the captions of MS-COCO where both are there.

    Args:
        root: path of the folder.

    Returns:
        `Listing`, or None where no such file is there.

    Raises:
        ValueError: a file that is damaged, or that names pictures outside the folder.
    """
    root = Path(root)
    own = [root / name for name in OWN_FILES if (root / name).is_file()]
    if own:
        captions = {}
        for path in own:
            read = _read_csv if path.suffix == ".csv" else _read_lines
            for name, texts in read(path):
                captions.setdefault(_inside(name, path), []).extend(texts)
        return Listing(None, captions)
    coco = _by_split(root, COCO)
    narratives = _by_split(root, NARRATIVES)
    if not coco and not narratives:
        return None
    splits, captions = {}, {}
    for split in SPLITS:
        found = {}
        for path in narratives.get(split) or coco.get(split, []):
            reader = (
                _read_narratives if path in narratives.get(split, []) else _read_coco
            )
            for name, text in reader(path, root, split):
                found.setdefault(_inside(name, path), []).append(text)
        if found:
            splits[SPLITS[split]] = sorted(found)
            captions |= found
    return Listing(splits, captions)


def _by_split(root, pattern):
    """Files of a set's annotations, by the word of their split."""
    found = {}
    for folder in (root, root / "annotations"):
        for path in sorted(folder.glob("*.json*")) if folder.is_dir() else []:
            if match := pattern.fullmatch(path.name):
                found.setdefault(match[1], []).append(path)
    return found


def _read_csv(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if "file" not in header or len(header) < 2:
            raise ValueError(
                f"{path} must have a column `file` and one of captions. "
                f"Received: {header}"
            )
        place = header.index("file")
        for row in rows:
            if row and place < len(row):
                texts = [text for i, text in enumerate(row) if i != place]
                yield row[place], _clean(texts)


def _read_lines(path):
    for number, line in _json_lines(path):
        name = line.get("file", line.get("file_name"))
        texts = line.get("captions", line.get("caption", line.get("text", [])))
        texts = [texts] if isinstance(texts, str) else texts
        right = isinstance(texts, list) and all(isinstance(t, str) for t in texts)
        if not isinstance(name, str) or not right:
            raise ValueError(
                f"Line {number} of {path} must have `file` and `caption`. "
                f"Received: {sorted(line)}"
            )
        yield name, _clean(texts)


def _read_coco(path, root, split):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {image["id"]: image["file_name"] for image in content["images"]}
        pairs = [(files[a["image_id"]], a["caption"]) for a in content["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no captions of MS-COCO: {error}") from error
    folder = split + COCO.fullmatch(path.name)[2]
    return ((f"{folder}/{name}", text.strip()) for name, text in pairs)


def _read_narratives(path, root, split):
    """Captions by the number of a picture, which the file's name holds."""
    folders = sorted(root.glob(f"{split}20*"), reverse=True)
    if not folders:
        raise ValueError(
            f"{path} needs the pictures of MS-COCO beside it, in {split}2017 or "
            f"{split}2014."
        )
    files = {int(p.stem[-12:]): p.name for p in folders[0].glob("*.jpg")}
    for number, line in _json_lines(path):
        try:
            image = int(line["image_id"])
            name = files.get(image, f"{image:012d}.jpg")
            yield f"{folders[0].name}/{name}", line["caption"].strip()
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"Line {number} of {path} is no localized narrative: {error}"
            ) from error


def _json_lines(path):
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"Line {number} of {path} is no JSON: {error}"
                ) from error
            if not isinstance(content, dict):
                raise ValueError(f"Line {number} of {path} must be an object.")
            yield number, content


def _clean(texts):
    return [words for text in texts if (words := " ".join(text.split()))]


def _inside(name, path):
    """The name of a picture, which must lie below the folder of its list."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
        raise ValueError(f"{path} names a picture outside of its folder: {name!r}")
    return "/".join(part for part in parts if part not in ("", "."))
