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
    num_samples: int = 16,
    keep: int = 4,
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
    name = Path(out_dir).resolve().name
    text = _card(chain, name, num_samples, keep, dtype, mark, card, licence, commands)
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


def _card(chain, name, num_samples, keep, dtype, mark, text, licence, commands):
    tokenizer, parti = chain.tokenizer, chain.parti
    size = tokenizer.config.image_size
    parts = [tokenizer, parti]
    others, chosen = "", "by Parti's own likelihood"
    if chain.reranker is not None:
        parts.append(chain.reranker)
        chosen = "by CoCa's cosine of picture and prompt"
        others += "| `score` | that cosine of a picture and a prompt |\n"
    if chain.upsampler is not None:
        parts.append(chain.folded_upsampler)
        large = size * chain.upsampler.scale
        others += f"| `upscale` | a picture enlarged to {large}×{large} pixels, or to "
        others += f"a `size` of {', '.join(map(str, chain.sizes))} |\n"
    facts = {
        "model_name": name,
        "pipeline_tag": "text-to-image",
        "tags": ["keras", "vit-vqgan", "parti"],
        "parameters": sum(int(np.prod(w.shape)) for p in parts for w in p.weights),
        "stored_as": dtype,
        "fingerprint": mark,
    }
    served = f"""\
| signature | answers with |
|---|---|
| `generate` (`serving_default`) | a picture of {size}×{size} pixels for each prompt |
| `generate_best` | the {keep} best of {num_samples} pictures for each prompt |
| `encode` | the {tokenizer.config.num_tokens} ids of a PNG or JPEG picture |
| `decode` | the picture of ids |
{others}
Scores rank pictures {chosen}. A request has 1 to {ROW_SIZES[-1]} rows."""
    configs = "\n".join(f"- {part.config}" for part in parts)
    model = f"{configs}\n- a vocabulary of {chain.vocabulary.size} pieces"
    return write_card(facts, text, licence, served, model, commands)
