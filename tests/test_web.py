"""A page for browsers is one file with the look of all of them."""

import re

import pytest

from keras_parti.evaluation.prompt_report import PAGE
from keras_parti.serving.page import FILE
from keras_parti.web import LOOK, read_page


@pytest.mark.parametrize("path", [FILE, PAGE], ids=lambda path: path.stem)
def test_a_page_holds_the_look_and_fetches_nothing(path):
    text = read_page(path)
    assert LOOK.read_text(encoding="utf-8") in text
    assert re.findall(r'(?:href|src)="(?!data:|#)[^"]', text) == []
    # Each colour that is used is one that is there.
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used <= set(re.findall(r"^ *(--[\w-]+):", text, re.MULTILINE))


def test_a_page_without_the_look_is_named(tmp_path):
    path = tmp_path / "bare.html"
    path.write_text("<html></html>")
    with pytest.raises(ValueError, match=r"bare\.html has no <link"):
        read_page(path)
