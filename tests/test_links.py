"""What the pages of the project point to is there, on a fresh clone too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("examples/**/*.md"),
    *ROOT.glob("saved_models/*/*/*.md"),
]
TARGET = re.compile(r"\]\(([^)\s]+)\)")


def anchor(heading):
    """The name that a page gives to a heading."""
    words = re.sub(r"[^\w\- ]", "", heading.lower())
    return "#" + words.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    anchors = {anchor(h) for h in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}
    for target in TARGET.findall(text):
        if target.startswith("#"):
            assert target in anchors, target
        elif "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
    """A page that shows a `|` inside a cell must escape it, or the row breaks."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = table.splitlines()
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert set(cells) == {cells[0]}, rows[0]


def test_pictures_of_pages_are_part_of_the_project():
    """Not left out by .gitignore, as a name that a command writes elsewhere may be."""
    ignored = {
        line.strip()
        for line in (ROOT / ".gitignore").read_text().splitlines()
        if line.strip().endswith(".png")
    }
    assert all(name.startswith("/") for name in ignored), ignored
