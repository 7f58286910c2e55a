"""Picture grids for people: white page, captions under the pictures, even spacing.

Needs Pillow and NumPy only.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_parti.pixels import check_pictures, to_uint8

INK = (38, 38, 42)
SOFT_INK = (110, 110, 118)  # captions: read second, after the pictures
FRAME = (226, 226, 230)  # a hairline, since many pictures are white at their border
PAPER = (255, 255, 255)
MAX_LINES = 3  # of a caption; more is cut, with an ellipsis
MAX_CHARACTERS = 400  # of a caption, before it is measured: a prompt may have 10,000


def grid(
    images: np.ndarray,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    size: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Arranges pictures in rows, each with its caption below.

    Args:
        images: uint8 `(batch, height, width, 3)`, or float in [0, 1].
        columns: int. Pictures in a row; None takes about the square root of their
            number, at most 8.
        captions: list of str, one a picture, any Unicode; None for no captions.
            Long ones are wrapped, then cut.
        size: int. Width of a picture on the page in pixels; None takes its own, or
            the whole multiple of it nearest above 160 where it is smaller.
        title: str above the grid, or None.

    Returns:
        A `PIL.Image.Image`, RGB.

    Raises:
        ValueError: no pictures, other shapes, or another number of captions.

    Example:
        >>> page = grid(np.zeros((6, 32, 32, 3), np.uint8), columns=3, title="Black")
        >>> page.save("black.png")
    """
    images = _checked(images)
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            "`captions` must be one a picture. "
            f"Received: {len(captions)} captions for {len(images)} pictures"
        )
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` must be positive. Received: columns={columns}")
    columns = min(columns or min(8, int(np.ceil(len(images) ** 0.5))), len(images))
    tiles = [enlarged(image, size) for image in images]
    width, height = tiles[0].size
    font = _font(max(13, round(width * 0.085)))
    lines = [_wrap(text, font, width) for text in captions or []]
    gap = max(10, round(width * 0.11))
    margin = 2 * gap
    line_height = _line_height(font)

    rows = -(-len(tiles) // columns)
    depths = []  # of each row of captions, by its longest
    for row in range(rows):
        in_row = lines[row * columns : (row + 1) * columns]
        depth = max((len(text) for text in in_row), default=0)
        depths.append(depth * line_height + gap // 2 if depth else 0)
    page_width = 2 * margin + columns * width + (columns - 1) * gap
    heading = _font(max(16, round(width * 0.12)))
    head = _wrap(title, heading, page_width - 2 * margin) if title else []
    top = margin + (len(head) * _line_height(heading) + gap if head else 0)
    page = Image.new(
        "RGB",
        (page_width, top + rows * height + sum(depths) + (rows - 1) * gap + margin),
        PAPER,
    )
    draw = ImageDraw.Draw(page)
    _write(draw, head, heading, page_width // 2, margin, INK)
    y = top
    for row in range(rows):
        for column in range(min(columns, len(tiles) - row * columns)):
            index = row * columns + column
            x = margin + column * (width + gap)
            _place(page, draw, tiles[index], x, y)
            if lines:
                _write(
                    draw,
                    lines[index],
                    font,
                    x + width // 2,
                    y + height + gap // 2,
                    SOFT_INK,
                )
        y += height + depths[row] + gap
    return page


def strip(
    rows: Sequence[tuple[str, np.ndarray]],
    headings: Sequence[str] | None = None,
    size: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Sets rows of pictures below each other, each with a label to its left.

    For comparisons down the columns (original, reconstruction) or, with `headings`,
    along the rows.

    Args:
        rows: list of (label, images); images as `grid` takes them, equally many and
            equally large in all rows.
        headings: list of str above the columns, or None.
        size: as in `grid`.
        title: str above the strip, or None.

    Returns:
        A `PIL.Image.Image`, RGB.

    Raises:
        ValueError: no rows, or rows that do not match.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row. Received: none")
    labels = [label for label, _ in rows]
    pictures = [_checked(images) for _, images in rows]
    shapes = {images.shape for images in pictures}
    if len(shapes) > 1:
        raise ValueError(f"All rows must have one shape. Received: {sorted(shapes)}")
    columns = len(pictures[0])
    if headings is not None and len(headings) != columns:
        raise ValueError(
            "`headings` must be one a column. "
            f"Received: {len(headings)} headings for {columns} columns"
        )
    tiles = [[enlarged(image, size) for image in images] for images in pictures]
    width, height = tiles[0][0].size
    font = _font(max(13, round(width * 0.1)))
    gap = max(8, round(width * 0.07))
    margin = 3 * gap
    line_height = _line_height(font)
    longest = max(font.getlength(_plain(label)) for label in labels)
    label_width = int(min(longest, 2 * width)) + 1
    left = margin + label_width + 2 * gap
    page_width = left + columns * width + (columns - 1) * gap + margin

    heading = _font(max(16, round(width * 0.12)))
    head = _wrap(title, heading, page_width - 2 * margin) if title else []
    top = margin + (len(head) * _line_height(heading) + gap if head else 0)
    above = [_wrap(text, font, width) for text in headings or []]
    depth = max((len(text) for text in above), default=0)
    head_y = top
    top += depth * line_height + gap if depth else 0
    page_height = top + len(rows) * height + (len(rows) - 1) * gap + margin
    page = Image.new("RGB", (page_width, page_height), PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, head, heading, page_width // 2, margin, INK)
    for column, text in enumerate(above):
        x = left + column * (width + gap) + width // 2
        y = head_y + (depth - len(text)) * line_height
        _write(draw, text, font, x, y, SOFT_INK)
    for row, label in enumerate(labels):
        y = top + row * (height + gap)
        text = _wrap(label, font, label_width)
        middle = y + (height - len(text) * line_height) // 2
        _write(draw, text, font, left - 2 * gap, middle, INK, align="right")
        for column, tile in enumerate(tiles[row]):
            _place(page, draw, tile, left + column * (width + gap), y)
    return page


def evenly(count, columns):
    """Returns places of pictures for a strip, spread over a set of them.

    Args:
        count: int. Pictures of the set.
        columns: int. Places, or fewer where the set has fewer pictures.
    """
    return np.unique(np.linspace(0, count - 1, columns).astype(int))


def _checked(images):
    images = check_pictures(images)
    return images if images.dtype == np.uint8 else to_uint8(np.clip(images, 0.0, 1.0))


def enlarged(image, size=None):
    """Returns a picture at the width that it has on a page.

    Bicubic: at twice to three times the size nearest pixels look coarse, and Lanczos
    rings at the edges of drawings on white.

    Args:
        image: uint8 `(height, width, 3)`.
        size: as in `grid`.

    Returns:
        A `PIL.Image.Image`.
    """
    picture = Image.fromarray(image)
    width, height = picture.size
    if size is None:
        size = width * max(1, -(-160 // width))
    if size == width:
        return picture
    return picture.resize(
        (size, max(1, round(height * size / width))), Image.Resampling.BICUBIC
    )


def _place(page, draw, tile, x, y):
    page.paste(tile, (x, y))
    box = (x - 1, y - 1, x + tile.width, y + tile.height)
    draw.rectangle(box, outline=FRAME)


def _font(size):
    return ImageFont.load_default(size)


def _line_height(font):
    ascent, descent = font.getmetrics()
    return ascent + descent + 2


def _plain(text):
    """One line of printable characters: a caption may be any string whatever.

    Pillow's own font has the letters of ASCII and little more: accents are taken off,
    and scripts that it lacks appear as boxes.
    """
    text = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    text = " ".join(unicodedata.normalize("NFKD", text).split())
    return "".join(c for c in text if unicodedata.category(c)[0] not in "CM")


def _wrap(text, font, width):
    """Breaks a caption into lines no wider than `width`, words whole where they fit."""
    lines = [""]
    for word in _plain(text).split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    if len(lines) <= MAX_LINES:
        return lines
    last = lines[MAX_LINES - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: MAX_LINES - 1], last.rstrip() + "…"]


def _write(draw, lines, font, x, y, ink, align="middle"):
    anchor = {"middle": "ma", "right": "ra"}[align]
    for number, line in enumerate(lines):
        place = (x, y + number * _line_height(font))
        draw.text(place, line, font=font, fill=ink, anchor=anchor)
