"""The page on which a person draws with a served model, in a browser."""

import html
from pathlib import Path

from keras_parti.web import read_page

FILE = Path(__file__).with_name("page.html")


def page(model):
    """Returns the page for a model, as UTF-8.

    It is one file without outer resources, and asks `/v1/models/MODEL:predict` of the
    server that it came from.

    Args:
        model: str. The model's name on that server.
    """
    named = f'data-model="{html.escape(model)}"'
    return read_page(FILE).replace('data-model="emoji"', named, 1).encode()
