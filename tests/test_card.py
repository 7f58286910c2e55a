"""A card says all that its schema asks; the shipped one does."""

from pathlib import Path

import pytest
import yaml

from keras_parti.serving.card import KEYS, SECTIONS, check_card, read_card, write_card

SHIPPED = Path(__file__).parents[1] / "saved_models"
FACTS = {
    "model_name": "toy",
    "pipeline_tag": "text-to-image",
    "tags": ["keras", "no", "1.5"],
    "parameters": 2_003,
    "stored_as": "float32",
    "fingerprint": "12e4" * 16,  # a number, if YAML is let
}
SERVED, MODEL = "| `encode` | ids |", "- ToyConfig(size=5)"


def card(text=None, licence="CC0-1.0", commands=()):
    return write_card(FACTS, text, licence, SERVED, MODEL, commands)


@pytest.mark.parametrize(
    "path", sorted(SHIPPED.glob("*/*/card.md")), ids=lambda p: p.parts[-3]
)
def test_a_shipped_card_is_complete(path):
    text = path.read_text(encoding="utf-8")
    check_card(text)
    keys, _ = read_card(text)
    assert keys["model_name"] == path.parts[-3]
    assert keys["fingerprint"] == (path.parent / "fingerprint").read_text().strip()
    assert "Not stated at export" not in text


def test_its_keys_are_yaml_as_others_read_it():
    text = card(
        '---\nlanguage: en\ndatasets:\n- a/b\nnote: "2: \\"é\\" # 5"\n---\nWords.'
    )
    keys, _ = read_card(text)
    assert keys == yaml.safe_load(text.split("---\n")[1])
    assert list(keys)[: len(KEYS)] == list(KEYS)
    assert keys["license"] == "cc0-1.0"
    assert (keys["language"], keys["datasets"]) == ("en", ["a/b"])
    assert {name: keys[name] for name in FACTS} == FACTS


def test_what_nobody_said_is_said_to_be_so():
    text = card(licence=None)
    check_card(text)
    assert read_card(text)[0]["license"] == "unknown"
    assert "Licence of the weights: not stated at export." in text
    assert "No description was given at export." in text
    assert text.count("Not stated at export") == len(SECTIONS) - 2


def test_a_text_keeps_its_sections_and_their_order():
    text = card(
        "Draws.\n\n## Limits\n\nMany.\n\n## Thanks\n\nTo all.\n", "MIT", ["a b"]
    )
    check_card(text)
    places = ["Draws.", "Limits\n\nMany", "Thanks\n\nTo", "made\n\n```sh\na b\n```"]
    found = [text.index(words) for words in (*places, "## Served", "## Model", MODEL)]
    assert found == sorted(found)


def test_a_card_can_be_the_text_of_the_next():
    first = card("Draws.\n\n## Limits\n\nMany.\n")
    assert card(first) == first


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "parameters: 2003",
            'parameters: "2003"',
            "`parameters` must be int",
        ),
        (
            "library_name: keras_parti\n",
            "",
            "`library_name` must be str",
        ),
        ('- keras\n- "no"\n- "1.5"\n', "", "`tags` must be list, received: []"),
        ("12e4" * 16 + '"', '5"', "`fingerprint` must be 64 hexadecimal digits"),
        ("# toy", "# tool", "the title must be `# toy`"),
        ("Draws.", "", "there is no description"),
        ("## Limits", "## Bounds", "section `## Limits` is missing"),
        ("Fingerprint 12", "Mark 13", "`## Model` must name the fingerprint"),
    ],
)
def test_what_is_missing_is_named(old, new, message):
    text = card("Draws.")
    assert old in text
    with pytest.raises(ValueError, match="must be complete") as caught:
        check_card(text.replace(old, new, 1))
    assert message in str(caught.value)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(ValueError, match="must be complete") as caught:
        check_card("# toy\n")
    for name in KEYS:
        assert f"`{name}` must be" in str(caught.value)
    for name in SECTIONS:
        assert f"`## {name}`" in str(caught.value)


@pytest.mark.parametrize("yaml", ["a: {b: 5}", "a: b\n- c", "- a", " a: 1", "a: 'b'"])
def test_other_yaml_is_refused(yaml):
    with pytest.raises(ValueError, match="A card's YAML"):
        card(f"---\n{yaml}\n---\n")
    with pytest.raises(ValueError, match="ends with a line of ---"):
        card("---\na: 1\n")
