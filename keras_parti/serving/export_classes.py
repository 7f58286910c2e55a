"""Writes a chain of classes as a SavedModel that TensorFlow Serving serves."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from keras_parti.models import ClassToImage
from keras_parti.serving.card import write_card
from keras_parti.serving.export import (
    check_possible,
    configs,
    describe,
    fingerprint,
    served_section,
    write_version,
)
from keras_parti.serving.served_classes import ServedClasses
from keras_parti.serving.warm_up import class_warm_up_requests

__all__ = ["export_classes"]


def export_classes(
    chain: ClassToImage,
    out_dir: str | os.PathLike,
    classes: Sequence[str] | None = None,
    dtype: str = "float32",
    card: str | None = None,
    licence: str | None = None,
    commands: Iterable[str] = (),
) -> Path:
    """Writes the next version of a model that draws pictures of classes.

    As `keras_parti.serving.export.export`, with the signature `generate_class` in
    place of those that take prompts.

    Args:
        chain: `ClassToImage`.
        out_dir: path of the model's folder; its name is the model's when served.
        classes: list of str, the names of the classes by label, for the card.
        dtype: str, "float32" or "bfloat16". How weights are stored.
        card: str. What a reader should know of the model, in Markdown.
        licence: str. That of the weights, for the card.
        commands: iterable of str. Those that made the parts, for the card.

    Returns:
        `pathlib.Path` of the version's folder.

    Raises:
        ValueError: An argument is out of its range, names of classes are too few or
            many, or Keras runs on a backend other than TensorFlow.
        OSError: The folder cannot be written.
    """
    check_possible(dtype)
    count = chain.vim.config.no_class
    classes = [f"class {i}" for i in range(count)] if classes is None else classes
    if len(classes) != count:
        raise ValueError(
            f"`classes` must be {count} names, as the model has classes. "
            f"Received: {len(classes)}"
        )
    module = ServedClasses(chain, dtype)
    mark = fingerprint(module)
    facts = describe(module, out_dir, dtype, mark) | {
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["keras", "vit-vqgan", "vim"],
    }
    size = chain.tokenizer.config.image_size
    answers = {
        "`generate_class` (`serving_default`)": f"a picture of {size}×{size} pixels a "
        "label"
    }
    names = enumerate([*classes, "none of them"])
    labels = "\n".join(f"| {label} | {each} |" for label, each in names)
    labels = f"| label | class |\n|---|---|\n{labels}\n\n"
    served = served_section(module, answers, labels)
    text = write_card(facts, card, licence, served, configs(module), commands)
    return write_version(out_dir, module, class_warm_up_requests(chain), mark, text)
