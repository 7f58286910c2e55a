"""The last step of Parti's tokenizer: a larger decoder, its codes left as they are."""

import dataclasses
import os
from typing import Any

from keras_parti.models import ViTVQGAN
from keras_parti.training.tokenizer import (
    DEFAULT,
    Losses,
    fit,
    panels,
    players,
)

__all__ = ["detokenizer"]  # `train_detokenizer` is in that of the package


def detokenizer(tokenizer: ViTVQGAN, dtype: Any = None, **decoder: Any) -> ViTVQGAN:
    """Returns a copy of a tokenizer whose decoder alone trains, perhaps larger.

    Encoder and codebook are frozen copies, so its ids, and its fingerprint, are those
    of the tokenizer: token caches and models of ids stay valid. The decoder starts from
    the old one as far as the two fit: with the same width and
    output it begins with the very pictures of the old one, however many blocks are new,
    since those begin as identities. A wider one begins at random.

    Args:
        tokenizer: `ViTVQGAN`.
        dtype: str or `keras.DTypePolicy`, such as "mixed_bfloat16".
        **decoder: fields of `ViTVQGANConfig` to change: `decoder_layers`,
            `decoder_dim`, `decoder_heads`, `decoder_mlp_dim`, `output`.

    Raises:
        ValueError: where a field is not of the decoder, or impossible.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.1: 32 blocks of
          width 1280, 16 heads, MLP 5120, after a small one of 8 × 512; the output
          "rgb" in place of logit-Laplace
    """
    for name in decoder:
        if not name.startswith("decoder_") and name != "output":
            raise ValueError(
                f"Only the decoder may change, fields decoder_… and output. Received: "
                f"{name}={decoder[name]!r}"
            )
    model = ViTVQGAN(dataclasses.replace(tokenizer.config, **decoder), dtype=dtype)
    for name in ("encoder", "quantizer"):
        frozen = getattr(model, name)
        frozen.set_weights(getattr(tokenizer, name).get_weights())
        frozen.trainable = False
    _start_from(model, tokenizer)
    return model


def _start_from(model, tokenizer):
    """Gives a decoder the weights of another as far as they are of one width."""
    same = [
        getattr(model.config, field) == getattr(tokenizer.config, field)
        for field in ("decoder_dim", "decoder_heads", "decoder_mlp_dim")
    ]
    if not all(same):
        return
    ours, theirs = model.decoder, tokenizer.decoder
    pairs = [(getattr(ours, n), getattr(theirs, n)) for n in ("embedding", "positions")]
    pairs += [*zip(ours.blocks, theirs.blocks, strict=False), (ours.norm, theirs.norm)]
    if model.config.output == tokenizer.config.output:
        pairs.append((ours.head, theirs.head))
    for part, start in pairs:
        part.set_weights(start.get_weights())


def train_detokenizer(
    model: ViTVQGAN,
    name_or_dir: str | os.PathLike,
    workdir: str | os.PathLike,
    steps: int = 2_000,
    batch_size: int = 16,
    accumulated_batches: int = 1,
    learning_rate: float = 3e-4,
    warmup_steps: int = 100,
    final_share: float = 0.01,
    average: float | None = None,
    terms: Losses = DEFAULT,
    steps_per_epoch: int = 100,
    seed: int = 0,
    verbose: str | int = "auto",
) -> None:
    """Trains the decoder of a detokenizer; resumes where `workdir` has a run.

    Parti does not publish its rate and steps; the defaults are for small models.

    Args:
        model: `ViTVQGAN` of `detokenizer`, its encoder and codebook frozen.
        name_or_dir: str. A picture set, as `keras_parti.data.load` takes it.
        workdir: str or path of the run.
        steps: int. Updates of the whole run, rounded up to whole epochs.
        batch_size: int. Pictures a batch.
        accumulated_batches: int. Batches whose mean gradient makes one step.
        learning_rate: float. Its peak.
        warmup_steps: int. Updates of linear warm-up.
        final_share: float in `[0, 1]`. What is left of the peak at the end.
        average: float or None. See `keras_parti.training.tokenizer.adamw`.
        terms: `keras_parti.training.tokenizer.Losses`; as they are, those of the
            paper that need no other network.
        steps_per_epoch: int. Updates between two checkpoints.
        seed: int. Seed of the order of the pictures.
        verbose: as in `keras.Model.fit`.

    Raises:
        FileNotFoundError: where the weights of the perceptual network are missing.
        ValueError: where the encoder or codebook is not frozen, the batch cannot be
            parted as asked, or the folder holds a run of another configuration.
    """
    if model.encoder.trainable_variables or model.quantizer.trainable_variables:
        raise ValueError(
            "The encoder and codebook of `model` must be frozen, as `detokenizer` "
            "returns it; else its ids would change."
        )
    fit(
        players(model, terms, accumulated_batches),
        name_or_dir,
        workdir,
        steps,
        batch_size,
        learning_rate,
        warmup_steps,
        steps_per_epoch,
        seed,
        average,
        final_share,
        callbacks=panels(model, name_or_dir, workdir),
        verbose=verbose,
    )
