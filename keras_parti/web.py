"""Pages for browsers: each is one file that fetches nothing."""

from pathlib import Path

LOOK = Path(__file__).with_name("look.css")
LINK = '<link rel="stylesheet" href="../look.css">'


def read_page(path):
    """Returns the text of a page with the look of all of them in it.

    Args:
        path: `pathlib.Path` of an HTML file, beside which a browser finds the look too.
    """
    text = path.read_text(encoding="utf-8")
    if LINK not in text:
        raise ValueError(f"{path} has no {LINK}")
    look = LOOK.read_text(encoding="utf-8")
    return text.replace(LINK, f"<style>\n{look}</style>", 1)
