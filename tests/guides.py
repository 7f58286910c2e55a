"""Reads the guides of `docs/`: their blocks, and the lines of code that they name.

python tests/guides.py      writes the line numbers anew, after a change of the code
"""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# [`what the line holds`](../the/file.py#L12)
PLACE = re.compile(r"\[`([^`]+)`\]\(\.\./([\w/.]+\.py)#L(\d+)\)")
ROW = re.compile(r"^\| `([^`]+)` \| (?:`([^`]+)`|a free port) \|$", re.MULTILINE)


def blocks(page):
    """Returns pairs of language and code, in order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(page):
    """Returns the words of each `keras-parti` command, as a shell splits them."""
    found = []
    for language, code in blocks(page):
        if language not in ("sh", "console"):
            continue
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            words = list(words)
            if words[:1] == ["keras-parti"]:
                end = [i for i, word in enumerate(words) if word in ("&", "|", ">")]
                found.append(words[1 : min(end, default=None)])
    return found


def stand_ins():
    """Returns what the tests put in place of large numbers, from the index's table."""
    return ROW.findall((DOCS / "README.md").read_text(encoding="utf-8"))


def places(page):
    """Returns triples of text, file and line, one for each line of code it names."""
    return PLACE.findall(page.read_text(encoding="utf-8"))


def line_of(text, path):
    """Returns the number of the line that holds a text.

    Raises:
        ValueError: no line holds it, or several do.
    """
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if text in line]
    if len(found) != 1:
        raise ValueError(
            f"A guide says that {path} holds `{text}` in one line. Found in: {found}"
        )
    return found[0]


def write_lines(page):
    """Writes the numbers of the lines that a page names as they are now."""

    def at(match):
        text, path, _ = match.groups()
        return f"[`{text}`](../{path}#L{line_of(text, path)})"

    old = page.read_text(encoding="utf-8")
    new = PLACE.sub(at, old)
    if new != old:
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    for each in PAGES:
        write_lines(each)
