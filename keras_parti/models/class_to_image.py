"""The chain for classes: labels to pictures, through image ids and the decoder."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_parti import sampling
from keras_parti.compiled import compiled
from keras_parti.models.base import check_finite_weights
from keras_parti.models.choosing import best_first
from keras_parti.models.pictures import to_uint8
from keras_parti.models.vim import VIM
from keras_parti.models.vit_vqgan import ViTVQGAN

# The paper samples from the model's own distribution, without guidance.
DEFAULTS: dict[str, Any] = {
    "guidance_scale": 1.0,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}


class ClassToImage:
    """Makes pictures of classes: VIM → ViT-VQGAN decoder.

    Args:
        tokenizer: `ViTVQGAN`, whose decoder turns ids into pictures.
        vim: `VIM`, trained on the ids of that tokenizer.

    Raises:
        ValueError: where the two do not fit together, or weights are not finite.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 4.1
    """

    def __init__(self, tokenizer: ViTVQGAN, vim: VIM) -> None:
        tokenizer.check_fits(vim, "vim")
        for name, part in (("tokenizer", tokenizer), ("vim", vim)):
            check_finite_weights(part, name)
        self.tokenizer = tokenizer
        self.vim = vim
        self._generate_ids = {
            guided: compiled(
                functools.partial(sampling.generate_ids, vim, guided=guided), vim
            )
            for guided in (False, True)
        }
        self._decode = compiled(
            lambda ids: {"images": to_uint8(tokenizer.decode(ids))}, tokenizer
        )

    def generate(
        self,
        labels: Sequence[int] | np.ndarray,
        num_samples: int = 1,
        keep: int = 1,
        guidance_scale: float = DEFAULTS["guidance_scale"],
        temperature: float = DEFAULTS["temperature"],
        top_k: int = DEFAULTS["top_k"],
        top_p: float = DEFAULTS["top_p"],
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        """Makes pictures; the best of several, by VIM's own likelihood.

        Args:
            labels: ints in `[0, no_class]`; the last, `vim.config.no_class`, is any
                picture, and the only label of a model without classes.
            num_samples: int. Pictures sampled for a label; the j-th is the picture of
                seed `seed + j`.
            keep: int, at most `num_samples`. Pictures returned, best first.
            guidance_scale: float in `[0, 30]`; 1, as in the paper, is no guidance. A
                model that was trained with all classes shown takes 1 alone.
            temperature: float in `[0, 10]`; 0 takes the likeliest id.
            top_k: int; ids are drawn among the k likeliest, 0 among all.
            top_p: float in `[0, 1]`; ids are drawn among the fewest whose
                probabilities add up to p.
            seed: int of 64 bits. Equal seeds give equal pictures.

        Returns:
            A dict of `images`, uint8 `(labels, keep, height, width, 3)`; `score`,
            float32 `(labels, keep)`, the mean log-likelihood of a token in nats; and
            `ids`, int32 `(labels, keep, num_tokens)`.

        Raises:
            ValueError: where a label or an option is outside its range, or a score is
                not finite.
        """
        sampling.check_counts(num_samples, keep)
        labels = self._check(labels, guidance_scale)
        seeds = sampling.sample_seeds(seed, num_samples, len(labels))
        outputs = self._draw(
            labels,
            seeds,
            guidance_scale=guidance_scale,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        ids = outputs["ids"].reshape(len(labels), num_samples, -1)
        score = outputs["score"].reshape(len(labels), num_samples)
        kept = best_first({"score": score, "ids": ids}, keep)
        images = self._pictures(kept["ids"].reshape(-1, ids.shape[-1]))
        shape = (len(labels), keep, *images.shape[1:])
        return {"images": images.reshape(shape), **kept}

    def draw(self, labels: Sequence[int] | np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Samples a picture for each label and seed, as the paper does.

        Args:
            labels: ints `(batch,)`, as for `generate`.
            seeds: int64 `(batch,)`.

        Returns:
            uint8 `(batch, height, width, 3)`.
        """
        labels = self._check(labels, DEFAULTS["guidance_scale"])
        return self._pictures(self._draw(labels, seeds, **DEFAULTS)["ids"])

    def save(self, path: str | os.PathLike) -> None:
        """Writes the parts as one folder, `tokenizer/` and `vim/` in it."""
        path = Path(path)
        self.tokenizer.save_dir(path / "tokenizer")
        self.vim.save_dir(path / "vim")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads a folder that `save` wrote.

        Raises:
            FileNotFoundError: where a part is missing.
            ValueError: where a part is broken.
        """
        path = Path(path)
        return cls(ViTVQGAN.load_dir(path / "tokenizer"), VIM.load_dir(path / "vim"))

    def _check(self, labels, guidance_scale):
        """Returns labels as int32, or raises `ValueError`."""
        labels, config = np.asarray(labels), self.vim.config
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
            raise ValueError(
                "`labels` must be a list of integers, one at least. "
                f"Received: {labels.dtype} of shape {labels.shape}"
            )
        if not 0 <= labels.min() <= labels.max() <= config.no_class:
            raise ValueError(
                f"`labels` must be in [0, {config.no_class}], of which the last is no "
                f"class. Received: {labels.min()} to {labels.max()}"
            )
        if guidance_scale != 1.0 and not config.class_dropout_rate:
            raise ValueError(
                "`guidance_scale` must be 1 for a model that was trained with "
                "`class_dropout_rate` 0: it has not learned pictures of no class. "
                f"Received: guidance_scale={guidance_scale}"
            )
        return labels.astype("int32")

    def _draw(self, labels, seeds, guidance_scale, temperature, top_k, top_p):
        """Samples ids, as many for each label as there are seeds for it."""
        options = {
            "guidance_scale": np.float32(guidance_scale),
            "temperature": np.float32(temperature),
            "top_k": np.int32(top_k),
            "top_p": np.float32(top_p),
        }
        sampling.check_options(**options)
        drawn = self._generate_ids[guidance_scale != 1.0](
            labels[:, None],
            sampling.seed_words(seeds),
            *(np.full(len(seeds), option) for option in options.values()),
        )
        sampling.check_likelihood(drawn["score"])
        return drawn

    def _pictures(self, ids):
        return self._decode(ids)["images"]
