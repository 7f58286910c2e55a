"""Writes a text-to-image chain as a SavedModel that TensorFlow Serving serves."""

import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_parti import sampling
from keras_parti.models import TextToImage
from keras_parti.serving.card import write_card
from keras_parti.serving.row_sizes import ROW_SIZES
from keras_parti.serving.servable import WARM_UP
from keras_parti.serving.served_chain import ServedChain
from keras_parti.serving.warm_up import warm_up_requests, write_warm_up

__all__ = ["export"]

logger = logging.getLogger(__name__)

STORED = ("float32", "bfloat16")

# A version is written under this name, and this machine's and the process' after it.
ASIDE = f".writing-{socket.gethostname()}-"


def export(
    chain: TextToImage,
    out_dir: str | os.PathLike,
    num_samples: int = sampling.NUM_SAMPLES,
    keep: int = sampling.KEEP,
    dtype: str = "float32",
    card: str | None = None,
    licence: str | None = None,
    commands: Iterable[str] = (),
) -> Path:
    """Writes the next version of a model to serve.

    The version appears in one step, by a rename, so that a server that polls the
    folder never sees half of it. With it go warm-up records of each signature at each
    of the sizes that rows are filled up to, `card.md` and `fingerprint`.

    Args:
        chain: `TextToImage`.
        out_dir: path of the model's folder; its name is the model's when served.
            Versions are the folders `1`, `2`, ... in it.
        num_samples: int. Pictures that `generate_best` draws for each prompt.
        keep: int. How many of them it returns, in [1, num_samples].
        dtype: str, "float32" or "bfloat16". How weights are stored. Half the size
            changes the pictures a little; the same seed gives the same ids as the
            chain only in "float32".
        card: str. What a reader should know of the model, in Markdown: sections of
            `keras_parti.serving.card.SECTIONS`, or an older card.
        licence: str. That of the weights, such as "Apache-2.0", for the card.
        commands: iterable of str. Those that made the parts, for the card.

    Returns:
        `pathlib.Path` of the version's folder.

    Raises:
        ValueError: An argument is out of its range, or Keras runs on a backend other
            than TensorFlow.
        OSError: The folder cannot be written.

    Example:
        >>> chain = TextToImage.load("runs/chain")
        >>> export(chain, "saved_models/mine", num_samples=2, keep=1).name
        '1'
    """
    check_possible(dtype)
    sampling.check_counts(num_samples, keep)
    module = ServedChain(chain, num_samples, keep, dtype)
    mark = fingerprint(module, chain.vocabulary)
    facts = describe(module, out_dir, dtype, mark) | {
        "pipeline_tag": "text-to-image",
        "tags": ["keras", "vit-vqgan", "parti"],
    }
    served = served_section(module, *_answers(chain, num_samples, keep))
    model = f"{configs(module)}\n- a vocabulary of {chain.vocabulary.size} pieces"
    text = write_card(facts, card, licence, served, model, commands)
    requests = warm_up_requests(chain, num_samples)
    return write_version(out_dir, module, requests, mark, text)


def check_possible(dtype):
    """Raises `ValueError` unless models can be stored so, here."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A SavedModel is written with KERAS_BACKEND=tensorflow. Received: "
            f"{keras.backend.backend()}"
        )
    if dtype not in STORED:
        raise ValueError(f"dtype must be one of {', '.join(STORED)}. Received: {dtype}")


def write_version(out_dir, module, requests, mark, card):
    """Writes a module with all that goes with it as the next version in a folder.

    Args:
        out_dir: path of the model's folder, made where it does not exist.
        module: `tf.Module` with `signatures()`.
        requests: what `write_warm_up` takes.
        mark: str, the fingerprint.
        card: str, Markdown.

    Returns:
        `pathlib.Path` of the version's folder.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    remove_remains(folder)
    # No number, so that neither server takes it for a version.
    aside = folder / f"{ASIDE}{os.getpid()}"
    try:
        tf.saved_model.save(module, str(aside), signatures=module.signatures())
        write_warm_up(aside / WARM_UP, folder.resolve().name, requests)
        (aside / "fingerprint").write_text(mark + "\n")
        (aside / "card.md").write_text(card)
        for path in aside.rglob("*"):
            if path.is_file():
                # The name must not survive a power cut that the bytes do not.
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        version = publish(aside, folder)
    except tf.errors.OpError as error:
        raise OSError(f"{folder} cannot be written: {error.message}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    logger.info("Wrote %s", version)
    return version


def fingerprint(module, vocabulary=None):
    """Hex digest of the stored weights and the vocabulary: what the pictures hang on.

    Args:
        module: `ServedChain`.
        vocabulary: `Vocabulary`, or None for a model of classes.

    Returns:
        str of 64 digits.
    """
    digest = hashlib.sha256(vocabulary.model_bytes if vocabulary else b"")
    for variable in module.stored:
        digest.update(variable.name.encode())
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def describe(module, out_dir, dtype, mark):
    """Facts of a card that the stored model itself tells, see `card.write_card`.

    Args:
        module: `ServedChain`.
        out_dir: path of the model's folder.
        dtype: str. How weights are stored.
        mark: str, the fingerprint.
    """
    weights = [weight for model in module.models for weight in model.weights]
    return {
        "model_name": Path(out_dir).resolve().name,
        "parameters": sum(int(np.prod(weight.shape)) for weight in weights),
        "stored_as": dtype,
        "fingerprint": mark,
    }


def served_section(module, answers, notes):
    """A card's section "Served".

    Args:
        module: `ServedChain`.
        answers: dict of signatures, as Markdown, to what they answer with. Those of the
            tokenizer follow.
        notes: str. What stands under the table.
    """
    tokenizer = module.models[0].config
    answers = answers | {
        "`encode`": f"the {tokenizer.num_tokens} ids of a PNG or JPEG picture",
        "`decode`": "the picture of ids",
    }
    rows = "\n".join(f"| {name} | {words} |" for name, words in answers.items())
    return (
        f"| signature | answers with |\n|---|---|\n{rows}\n\n"
        f"{notes}A request has 1 to {ROW_SIZES[-1]} rows."
    )


def configs(module):
    """The configs of a stored model's parts, as a list of Markdown."""
    return "\n".join(f"- {model.config}" for model in module.models)


def remove_remains(folder):
    """Removes what exports on this machine left that were killed."""
    for path in folder.glob(f"{ASIDE}*"):
        try:
            os.kill(int(path.name.removeprefix(ASIDE)), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, PermissionError):
            pass  # no export's, or that of another user who is at work


def publish(aside, folder):
    """Gives the finished folder the next number."""
    while True:
        taken = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
        version = folder / str(max(taken, default=0) + 1)
        try:
            os.rename(aside, version)
        except OSError:
            # Another export took the number in between; any other reason is real.
            if not version.exists():
                raise
            continue
        return version


def _answers(chain, num_samples, keep):
    """What the signatures of a chain answer with, and how pictures are ranked."""
    size = chain.tokenizer.config.image_size
    answers = {
        "`generate` (`serving_default`)": f"a picture of {size}×{size} pixels for each "
        "prompt",
        "`generate_best`": f"the {keep} best of {num_samples} pictures for each prompt",
    }
    chosen = "by Parti's own likelihood"
    if chain.reranker is not None:
        chosen = "by CoCa's cosine of picture and prompt"
        answers["`score`"] = "that cosine of a picture and a prompt"
    if chain.upsampler is not None:
        large = size * chain.upsampler.scale
        answers["`upscale`"] = (
            f"a picture enlarged to {large}×{large} pixels, or to a `size` of "
            f"{', '.join(map(str, chain.sizes))}"
        )
    return answers, f"Scores rank pictures {chosen}. "
