"""The card of an exported model: what a program asks of it, then what a reader does.

`card.md` begins with YAML between two lines of three hyphens, in the keys of Hugging
Face's model cards and some of ours, all flat. Sections of Markdown follow, of which
each of `SECTIONS` is there.
"""

import json
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from keras_parti import __version__

# Every card answers these; where export was not told, it says so.
SECTIONS = {
    "Data and licences": "what pictures and captions it has learned, and whose",
    "How it was made": "commands, steps, machine and training time",
    "What it scores": "measured numbers, with the commands that measure them",
    "Limits": "what it cannot do",
    "Served": "signatures and what they answer",
    "Model": "sizes, licence and fingerprint of the weights",
}
KEYS: dict[str, type] = {
    "model_name": str,
    "license": str,  # an id of Hugging Face's list, such as apache-2.0, or unknown
    "library_name": str,
    "pipeline_tag": str,
    "tags": list,
    "parameters": int,
    "stored_as": str,
    "fingerprint": str,  # of weights and vocabulary, 64 hexadecimal digits
    "keras_parti_version": str,
    "keras_version": str,
    "tensorflow_version": str,
}
FENCE = "---"
# What YAML would read as something else than the string that it is.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z][\w./-]*", re.I)


def write_card(
    facts: Mapping[str, Any],
    text: str | None,
    licence: str | None,
    served: str,
    model: str,
    commands: Iterable[str] = (),
) -> str:
    """Writes a card of what is known.

    Args:
        facts: the keys `model_name`, `pipeline_tag`, `tags`, `parameters`, `stored_as`
            and `fingerprint` of `KEYS`.
        text: str or None. Markdown of the one who exports, such as an older card: its
            sections stay, but for "Served" and "Model", and so do further keys of its
            YAML, such as `datasets`.
        licence: str or None. That of the weights, such as "Apache-2.0".
        served: str. Section "Served".
        model: str. What of section "Model" follows its first facts.
        commands: those that made the parts, for "How it was made".

    Raises:
        ValueError: where `text` begins with what is no YAML of this kind.
    """
    keys, body = read_card(text or "")
    keys |= {
        **facts,
        "license": (licence or "unknown").lower(),
        "library_name": "keras_parti",
        "keras_parti_version": __version__,
        "keras_version": version("keras"),
        "tensorflow_version": version("tensorflow"),
    }
    intro, sections = _split(body)
    commands = "\n".join(commands)
    if commands:
        sections.setdefault("How it was made", f"```sh\n{commands}\n```")
    for name, words in SECTIONS.items():
        sections.setdefault(name, f"Not stated at export: {words}.")
    # Last, in the place of older ones.
    for name in ("Served", "Model"):
        del sections[name]
    sections["Served"] = served
    sections["Model"] = (
        f"Licence of the weights: {licence or 'not stated at export'}.\n"
        f"{keys['parameters']:,} parameters, stored as {keys['stored_as']}. "
        f"Fingerprint {keys['fingerprint']}.\n\n{model}"
    )
    parts = [f"# {keys['model_name']}", intro or "No description was given at export."]
    for name, content in sections.items():
        parts += [f"## {name}", content.strip("\n")]
    ordered = {key: keys[key] for key in (*KEYS, *(k for k in keys if k not in KEYS))}
    return "\n".join([FENCE, *_yaml(ordered), FENCE, "", "\n\n".join(parts), ""])


def read_card(text: str) -> tuple[dict[str, Any], str]:
    """Returns the keys of a card's YAML, none where it has none, and the Markdown.

    Raises:
        ValueError: where it begins with what is not flat YAML of strings, integers and
            lists of strings.
    """
    lines = text.splitlines()
    if lines[:1] != [FENCE]:
        return {}, text
    if FENCE not in lines[1:]:
        raise ValueError(
            f"A card's YAML ends with a line of {FENCE}. Received: no such"
        )
    end = lines.index(FENCE, 1)
    keys: dict[str, Any] = {}
    items: Any = None
    for line in lines[1:end]:
        if match := re.fullmatch(r"(\w+):(?: +(\S.*))?", line):
            items = keys[match[1]] = _value(match[2]) if match[2] else []
        elif (match := re.fullmatch(r" *- +(\S.*)", line)) and isinstance(items, list):
            items.append(_value(match[1]))
        else:
            raise ValueError(
                f"A card's YAML has lines `key: value` and `- item`. Received: {line!r}"
            )
    return keys, "\n".join(lines[end + 1 :])


def check_card(text: str) -> None:
    """Raises `ValueError`, which lists all that is wrong, unless a card is complete.

    Args:
        text: str. The content of a `card.md`.
    """
    keys, body = read_card(text)
    wrong = [
        f"`{name}` must be {kind.__name__}, received: {keys.get(name)!r}"
        for name, kind in KEYS.items()
        if type(keys.get(name)) is not kind or keys[name] in ("", [])
    ]
    mark = str(keys.get("fingerprint"))
    if not re.fullmatch(r"[0-9a-f]{64}", mark):
        wrong.append(f"`fingerprint` must be 64 hexadecimal digits, received: {mark}")
    intro, sections = _split(body)
    title = re.search(r"^# (.+)$", body, re.MULTILINE)
    if not title or title[1] != keys.get("model_name"):
        wrong.append(f"the title must be `# {keys.get('model_name')}`")
    if not intro:
        wrong.append("there is no description under the title")
    for name, words in SECTIONS.items():
        if not sections.get(name, "").strip():
            wrong.append(f"section `## {name}` is missing or empty: {words}")
    if mark not in sections.get("Model", ""):
        wrong.append("section `## Model` must name the fingerprint")
    if wrong:
        raise ValueError(f"A card must be complete. Received: {'; '.join(wrong)}")


def _split(body):
    """Returns what stands before the first section, without the title, and sections."""
    intro, *rest = re.split(r"^## +(.+?) *$", body, flags=re.MULTILINE)
    intro = re.sub(r"\A\s*# .*$", "", intro, count=1, flags=re.MULTILINE)
    return intro.strip(), dict(zip(rest[::2], rest[1::2], strict=True))


def _value(text):
    if text.startswith('"'):
        return json.loads(text)  # raises a ValueError of its own
    if text[0] in "[]{}&*!|>'%@`#":
        raise ValueError(f"A card's YAML has strings and integers. Received: {text}")
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _yaml(keys):
    for key, value in keys.items():
        if isinstance(value, list):
            yield f"{key}:"
            yield from (f"- {_scalar(item)}" for item in value)
        else:
            yield f"{key}: {_scalar(value)}"


def _scalar(value):
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    # A string in JSON is one in YAML.
    return value if plain else json.dumps(value, ensure_ascii=False)
