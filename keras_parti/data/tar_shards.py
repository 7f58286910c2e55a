"""Tar files of pictures with captions beside them, as WebDataset lays them out.

    shard-000000.tar:  000017.jpg  000017.txt        captions, one a line
                       000018.png  000018.json       {"caption": ...}, or "text"

Only the headers are read to find what is where; a picture is read from its place when
it is needed. Nothing is unpacked, so no name in an archive can be written anywhere; one
that points outside, or is no plain file, is left out and named all the same.
"""

import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from keras_parti.data.decoding import SUFFIXES

TEXTS = (".txt", ".json")
MAX_TEXT_BYTES = 2**16  # of captions; more are none


class Place(NamedTuple):
    """Where the bytes of a file are."""

    shard: Path
    offset: int
    size: int

    def read(self, limit=None):
        """Returns the bytes, at most so many.

        Raises:
            EOFError: the shard ends before them.
        """
        wanted = self.size if limit is None else min(limit, self.size)
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            content = file.read(wanted)
        if len(content) < wanted:
            raise EOFError(f"{self.shard.name} ends in the middle of it")
        return content


def find_pictures(root, shards):
    """Finds the pictures in tar files.

    Args:
        root: path of the folder.
        shards: list of str: paths of the tar files, below `root`.

    Returns:
        Three dicts: the `Place` of each picture, by a path as
        "train/shard-000000.tar/000017.jpg"; the `Place` of its text, where it has one,
        and its suffix, by the same; and the reason why something was left out, by its
        path.
    """
    pictures, texts, skipped = {}, {}, {}
    for shard in sorted(shards):
        beside, found = {}, []
        try:
            # Not compressed: in others nothing has a place of its own.
            with tarfile.open(Path(root, shard), "r:") as file:
                for member in file:
                    key = f"{shard}/{member.name}"
                    if reason := _refused(member):
                        skipped[key] = reason
                        continue
                    place = Place(Path(root, shard), member.offset_data, member.size)
                    stem, suffix = _divide(member.name)
                    if suffix in SUFFIXES:
                        found.append((key, stem, place))
                    elif suffix in TEXTS:
                        beside[stem] = place, suffix
        except (tarfile.TarError, OSError, EOFError) as error:
            skipped[shard] = f"no readable tar file: {error}"
        for key, stem, place in found:
            pictures[key] = place
            if stem in beside:
                texts[key] = beside[stem]
    return pictures, texts, skipped


def read_texts(place, suffix):
    """Returns the captions of a picture, as UTF-8 bytes; none where they are broken."""
    text = place.read(MAX_TEXT_BYTES).decode("utf-8-sig", "replace")
    if suffix == ".txt":
        lines = text.splitlines()
    else:
        try:
            content = json.loads(text)
        except ValueError:
            return []
        content = content if isinstance(content, dict) else {}
        lines = content.get("captions", content.get("caption", content.get("text")))
        lines = [lines] if isinstance(lines, str) else lines
        if not isinstance(lines, list) or not all(isinstance(x, str) for x in lines):
            return []
    return [words.encode() for line in lines if (words := " ".join(line.split()))]


def _refused(member):
    if member.isdir():
        return None
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        return "its name points outside of the archive"
    if not member.isreg() or member.issparse():
        return "it is a link or a device, no plain file"
    return None


def _divide(name):
    """Stem and suffix; WebDataset divides at the first dot of the last part."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    suffix = "." + suffix.rpartition(".")[2].lower() if suffix else ""
    return folder + slash + stem, suffix
