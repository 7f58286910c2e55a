"""What `keras-parti serve` offers to try: a command that its first model answers."""

import contextlib
import json
import shlex
from types import SimpleNamespace

import pytest

from keras_parti.cli import draw


@pytest.mark.parametrize(
    ("card", "prompt"),
    [
        ("--data emoji_captions/small", "red apple in google style"),
        ("--data photos", "YOUR PROMPT"),
        (None, "YOUR PROMPT"),
    ],
)
def test_the_prompt_to_try_is_one_that_the_model_has_learned(card, prompt, tmp_path):
    (tmp_path / "2").mkdir()
    if card:
        (tmp_path / "2" / "card.md").write_text(card)
    wanted = f'keras-parti generate "{prompt}" --server a:1 --name m --out picture.png'
    assert draw.example(serving_of(tmp_path, "generate")) == wanted


def test_a_model_of_classes_is_tried_with_a_label(tmp_path):
    words = shlex.split(draw.example(serving_of(tmp_path, "generate_class")))
    assert words[:2] == ["curl", "-d"]
    assert json.loads(words[2]) == {
        "signature_name": "generate_class",
        "instances": [{"label": 0}],
    }
    assert words[3:] == ["http://a:2/v1/models/m:predict"]


def serving_of(folder, signature):
    """What `draw.example` asks of a server."""
    servable = SimpleNamespace(signatures={signature: None})
    model = SimpleNamespace(
        folder=folder, name="m", lease=lambda: contextlib.nullcontext(servable)
    )
    return SimpleNamespace(models=[model], version=2, address="a:1", rest_address="a:2")
