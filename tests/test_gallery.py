"""Grids hold every picture unchanged, and captions whatever they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_parti.evaluation import gallery
from keras_parti.evaluation.gallery import grid, strip


def waves(shape):
    return (
        np.round(127 + 127 * np.sin(np.arange(np.prod(shape)) * 0.7))
        .astype(np.uint8)
        .reshape(shape)
    )


def places(page, picture):
    """Where a picture occurs in a page, as (top, left)."""
    page, (height, width) = np.asarray(page), picture.shape[:2]
    corners = (page[: -height + 1, : -width + 1] == picture[0, 0]).all(axis=-1)
    return [
        (top, left)
        for top, left in np.argwhere(corners).tolist()
        if (page[top : top + height, left : left + width] == picture).all()
    ]


def test_every_picture_stands_in_the_grid_in_reading_order():
    images = waves((7, 11, 13, 3))
    page = grid(images, columns=3, captions=["a caption"] * 7, size=13, title="Seven")
    found = [places(page, image) for image in images]
    assert [len(at) for at in found] == [1] * 7
    corners = [at[0] for at in found]
    assert corners == sorted(corners)
    assert len({top for top, _ in corners}) == 3
    assert len({left for _, left in corners}) == 3


def test_every_picture_stands_in_its_row_of_a_strip():
    rows = waves((2, 3, 11, 13, 3))
    page = strip(
        [("original", rows[0]), ("copy", rows[1])],
        headings=["one", "two", "three"],
        size=13,
        title="Strip",
    )
    tops = [[places(page, image)[0][0] for image in row] for row in rows]
    assert len(set(tops[0])) == len(set(tops[1])) == 1
    assert tops[0][0] < tops[1][0]


def test_float_pictures_give_the_page_of_their_bytes():
    images = waves((3, 11, 13, 3))
    a, b = grid(images), grid(images.astype(np.float32) / 255.0)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_small_pictures_are_enlarged_by_a_whole_multiple():
    enlarged = gallery.enlarged(waves((64, 64, 3)))
    assert enlarged.size == (192, 192)
    assert gallery.enlarged(waves((256, 256, 3))).size == (256, 256)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=60), st.integers(20, 300))
def test_any_text_becomes_lines_that_fit(text, width):
    font = gallery._font(15)
    lines = gallery._wrap(text, font, width)
    assert 1 <= len(lines) <= gallery.MAX_LINES
    for line in lines:
        # One character wider than the column still has to stand somewhere.
        assert font.getlength(line) <= width or len(line) <= 2
    grid(waves((1, 11, 13, 3)), captions=[text])


@pytest.mark.parametrize(
    "text", ["", "\ud800 torn", "null \x00 byte", "日本語 🐱 العربية", "word " * 4000]
)
def test_awkward_captions_are_drawn(text):
    page = grid(waves((2, 11, 13, 3)), captions=[text, "plain"])
    strip([(text, waves((2, 11, 13, 3)))], title=text, headings=[text, "b"])
    assert page.height < 500


def test_accents_become_the_letters_that_the_font_has():
    assert gallery._plain("piñata à la crème") == "pinata a la creme"


def test_short_captions_are_kept_whole_and_long_ones_end_in_an_ellipsis():
    font = gallery._font(15)
    assert " ".join(gallery._wrap("red apple in google style", font, 90)) == (
        "red apple in google style"
    )
    assert gallery._wrap("word " * 100, font, 90)[-1].endswith("…")


def test_mistakes_are_named():
    images = waves((3, 11, 13, 3))
    with pytest.raises(ValueError, match="2 captions for 3 pictures"):
        grid(images, captions=["a", "b"])
    with pytest.raises(ValueError, match=r"at least one picture.*\(0, 11, 13, 3\)"):
        grid(images[:0])
    with pytest.raises(ValueError, match="columns=0"):
        grid(images, columns=0)
    with pytest.raises(ValueError, match="int64"):
        grid(images.astype(int))
    with pytest.raises(ValueError, match="at least one row"):
        strip([])
    with pytest.raises(ValueError, match="one shape"):
        strip([("a", images), ("b", images[:2])])
    with pytest.raises(ValueError, match="1 headings for 3 columns"):
        strip([("a", images)], headings=["x"])
