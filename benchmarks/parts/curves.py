"""A picture of curves, without a plotting package."""

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 900, 420, 60
INKS = ((200, 60, 50), (50, 110, 200), (60, 150, 70), (190, 130, 30))
GREY, LIGHT = (90, 90, 90), (225, 225, 225)


def draw_curves(path, title, curves, unit, from_zero=True):
    """Draws curves over one axis, which begins where the first of them does.

    Args:
        path: the PNG file to write.
        title: str.
        curves: dict of label to (places, values), each a sequence of numbers.
        unit: str of the values.
        from_zero: bool. Whether the values' axis begins at zero, or at the least.
    """
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(page)
    places, values = (np.concatenate([c[i] for c in curves.values()]) for i in (0, 1))
    bottom = 0.0 if from_zero else float(values.min())
    top = float(values.max())
    top += 0.1 * (top - bottom) or 1.0

    def across(x):
        share = (np.asarray(x) - places.min()) / max(np.ptp(places), 1e-9)
        return MARGIN + share * (WIDTH - 2 * MARGIN)

    def up(y):
        share = (np.asarray(y) - bottom) / (top - bottom)
        return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)

    step = 10.0 ** np.floor(np.log10(top - bottom)) / 2
    for value in np.arange(np.ceil(bottom / step), top / step) * step:
        pen.line([(MARGIN, up(value)), (WIDTH - MARGIN, up(value))], LIGHT)
        pen.text((8, up(value) - 6), f"{value:g} {unit}", GREY)
    for i, (label, (x, y)) in enumerate(curves.items()):
        ink = INKS[i % len(INKS)]
        pen.line(list(zip(across(x), up(y), strict=True)), ink, 2)
        pen.text((MARGIN + 210 * i, HEIGHT - 40), label, ink)
    pen.text((MARGIN, 20), title, GREY)
    page.save(path)
    print(f"The plot: {path}")
