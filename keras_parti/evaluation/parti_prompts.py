"""PartiPrompts: 1,632 prompts in 12 categories and 11 challenges, as published."""

import os
from pathlib import Path
from typing import NamedTuple

URL = "https://raw.githubusercontent.com/google-research/parti/main/PartiPrompts.tsv"
SHA256 = "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb"
HEADER = ["Prompt", "Category", "Challenge", "Note"]


class Prompt(NamedTuple):
    """A row of the file."""

    # Of the row, from 0, the header not counted. It hides the method of tuples.
    index: int  # type: ignore[assignment]
    text: str  # as it stands: some begin or end with a space
    category: str  # what is to be seen, such as "Animals"
    challenge: str  # what is hard about it, such as "Quantity"
    note: str  # often empty


def read_prompts(path: str | os.PathLike | None = None) -> list[Prompt]:
    """Reads PartiPrompts, or prompts of one's own in the same form.

    UTF-8, a row a line, fields divided by tabs. Quotation marks are letters: a prompt
    that begins with one keeps it.

    Args:
        path: path of the file, the columns Prompt, Category, Challenge, Note. None
            fetches the published file once, to Keras' cache (`KERAS_HOME`), and
            checks its SHA-256.

    Returns:
        A list of `Prompt`.

    Raises:
        ValueError: another header, a row of another number of fields, no row, or a
            fetched file of another content.
        OSError: no such file, or none could be fetched.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 4.3
    """
    path = Path(path or _fetch())
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    # Not `splitlines`, which also breaks at characters that a prompt may hold.
    rows = [line.removesuffix("\r").split("\t") for line in lines if line.strip()]
    if not rows or rows[0] != HEADER:
        raise ValueError(
            f"{path} must begin with the columns {', '.join(HEADER)}, divided by tabs. "
            f"Received: {rows[:1]}"
        )
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(HEADER):
            raise ValueError(
                f"Row {number} of {path} must have {len(HEADER)} fields. "
                f"Received: {len(row)}: {row}"
            )
    if len(rows) == 1:
        raise ValueError(f"{path} holds no prompt, only the header.")
    return [Prompt(index, *row) for index, row in enumerate(rows[1:])]


def spread(prompts, count):
    """Chooses some prompts, evenly over the list: published ones are in categories.

    Args:
        prompts: list of `Prompt`.
        count: int. How many; all where there are no more.

    Returns:
        A list of `Prompt`, in their order.
    """
    count = min(count, len(prompts))
    return [prompts[i * len(prompts) // count] for i in range(count)]


def _fetch():
    # Deferred, because it imports a backend.
    import keras

    try:
        return keras.utils.get_file(
            origin=URL,
            cache_subdir="keras_parti",
            file_hash=SHA256,
            hash_algorithm="sha256",
        )
    except ValueError:
        raise
    except Exception as error:  # Keras raises this very class
        raise OSError(
            f"PartiPrompts could not be fetched: {error}. Give the file by its path."
        ) from error
