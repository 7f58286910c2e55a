"""The chain: prompts to pictures, chosen and enlarged."""

import functools
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np

from keras_parti import pixels, sampling
from keras_parti.compiled import compiled
from keras_parti.models.base import check_finite_weights, check_ids
from keras_parti.models.choosing import best_first, reading, score_samples
from keras_parti.models.coca import CoCa
from keras_parti.models.parti import Parti
from keras_parti.models.pictures import to_floats, to_uint8
from keras_parti.models.vit_vqgan import ViTVQGAN
from keras_parti.models.wdsr import WDSR

if TYPE_CHECKING:  # it imports sentencepiece, which the models do without
    from keras_parti.text import Vocabulary

VOCABULARY_FILE = "vocabulary.model"
PARTS = ("tokenizer", "parti", "reranker", "upsampler")
OPTIONAL: dict[str, Any] = {"reranker": CoCa, "upsampler": WDSR}


class TextToImage:
    """Makes pictures of prompts: vocabulary → Parti → ViT-VQGAN decoder → CoCa → WDSR.

    Args:
        tokenizer: `ViTVQGAN`, whose decoder turns ids into pictures.
        parti: `Parti`, trained on the ids of that tokenizer.
        vocabulary: `keras_parti.text.Vocabulary` of the parti's text length.
        reranker: `CoCa` that chooses among the pictures of a prompt, trained with that
            vocabulary; a `reranker()` is enough. None: Parti's own likelihood chooses.
        upsampler: `WDSR` that enlarges pictures, or None. Its kernels are made plain.

    Raises:
        ValueError: where the parts do not fit together, or weights are not finite.

    Example:
        >>> chain = TextToImage.load("runs/chain")
        >>> chain.generate(["red apple"], num_samples=4, keep=2)["images"].shape[:2]
        (1, 2)

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), figure 3
    """

    def __init__(
        self,
        tokenizer: ViTVQGAN,
        parti: Parti,
        vocabulary: "Vocabulary",
        reranker: CoCa | None = None,
        upsampler: WDSR | None = None,
    ) -> None:
        tokenizer.check_fits(parti, "parti")
        if vocabulary.length != parti.config.text_length:
            raise ValueError(
                f"`text_length` of `parti` must be {vocabulary.length}, as that of the "
                f"vocabulary. Received: text_length={parti.config.text_length}"
            )
        learned = parti.config.vocabulary
        if learned not in (None, vocabulary.fingerprint):
            raise ValueError(
                "`vocabulary` must be the one that `parti` was trained with, of "
                f"fingerprint {learned[:8]}. Received: {vocabulary.fingerprint[:8]}"
            )
        if vocabulary.size > parti.config.text_vocab_size:
            raise ValueError(
                f"`text_vocab_size` of `parti` must be at least {vocabulary.size}, the "
                "size of the vocabulary. "
                f"Received: text_vocab_size={parti.config.text_vocab_size}"
            )
        parts = (tokenizer, parti, reranker, upsampler)
        for name, part in zip(PARTS, parts, strict=True):
            if part is not None:
                check_finite_weights(part, name)
        self.tokenizer = tokenizer
        self.parti = parti
        self.vocabulary = vocabulary
        self.reranker = reranker
        self.upsampler = upsampler
        # Without guidance half of the work is left out: a graph of its own.
        self._generate_ids, self._begin = (
            {
                guided: compiled(
                    functools.partial(function, parti, guided=guided), parti, numpy
                )
                for guided in (False, True)
            }
            for function, numpy in (
                (sampling.generate_ids, True),
                (sampling.begin, False),
            )
        )
        self._advance = compiled(
            functools.partial(sampling.advance, parti), parti, numpy=False
        )
        self._encode = compiled(tokenizer.encode, tokenizer)
        self._decode = compiled(lambda ids: to_uint8(tokenizer.decode(ids)), tokenizer)
        if reranker is not None:
            self.reader = reading(reranker, vocabulary)
            self._score = compiled(
                lambda images, ids: score_samples(reranker, to_floats(images), ids),
                reranker,
            )
        if upsampler is not None:
            self.folded_upsampler = plain = upsampler.fold()
            self._upscale = compiled(
                lambda images: to_uint8(plain.upscale(to_floats(images))), plain
            )

    def generate(
        self,
        prompts: Sequence[str],
        num_samples: int = sampling.NUM_SAMPLES,
        keep: int | None = None,
        guidance_scale: float | np.ndarray = sampling.DEFAULTS["guidance_scale"],
        temperature: float = sampling.DEFAULTS["temperature"],
        top_k: int = sampling.DEFAULTS["top_k"],
        top_p: float = sampling.DEFAULTS["top_p"],
        seed: int = 0,
        size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Makes pictures; the best of several, by the reranker or Parti's likelihood.

        Args:
            prompts: list of str. The empty prompt gives any picture.
            num_samples: int. Pictures sampled for a prompt; the j-th is the picture
                of seed `seed + j`.
            keep: int, at most `num_samples`. Pictures returned, best first; None
                returns 4, or all where fewer are sampled.
            guidance_scale: float in `[0, 30]`; 1 is no guidance. Or an array of
                `num_tokens` of them, such as `sampling.guidance_schedule` makes.
            temperature: float in `[0, 10]`; 0 takes the likeliest id.
            top_k: int; ids are drawn among the k likeliest, 0 among all.
            top_p: float in `[0, 1]`; ids are drawn among the fewest whose
                probabilities add up to p.
            seed: int of 64 bits. Equal seeds give equal pictures.
            size: int, one of `sizes`, or None for the tokenizer's. Pixels a side.

        Returns:
            A dict of `images`, uint8 `(prompts, keep, size, size, 3)`; `score`, float32
            `(prompts, keep)`, by which they were chosen: the reranker's cosine of
            picture and prompt, or without one the mean log-likelihood of a token in
            nats; `ids`, int32 `(prompts, keep, num_tokens)`; `prompt_tokens`,
            int32 `(prompts,)`, ids of the whole prompt; `truncated`, bool `(prompts,)`.

        Raises:
            ValueError: where an option is outside its range, or a score is not
                finite, because of weights that are not.
            TypeError: where `prompts` is no list of strings.
        """
        options = {
            "guidance_scale": guidance_scale,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        self._check_size(size)
        drawn = self._sample(prompts, num_samples, keep, seed, options)
        return {**drawn, "images": self.upscale(drawn["images"], size)}

    def complete(
        self,
        prompts: Sequence[str],
        ids: np.ndarray,
        rows: int,
        num_samples: int = sampling.NUM_SAMPLES,
        keep: int | None = None,
        seed: int = 0,
        **sampling_options: Any,
    ) -> dict[str, np.ndarray]:
        """Makes pictures that begin as given ones do.

        Args:
            prompts: list of str.
            ids: int32 `(prompts, num_tokens)`, a picture for each prompt, as `encode`
                returns them.
            rows: int. Rows of ids that are kept, from the top; the others are sampled.
                With 0 this is `generate`.
            num_samples: int, as `generate` takes it.
            keep: int, as `generate` takes it.
            seed: int of 64 bits.
            **sampling_options: `guidance_scale` to `top_p`, as `generate` takes them.

        Returns:
            What `generate` returns; a likelihood is that of the sampled ids.

        Raises:
            ValueError: as `generate`, and where ids or rows are out of range.
            TypeError: as `generate`.
        """
        ids = self._check_ids(ids)
        if ids.shape[:-1] != (len(prompts),):
            raise ValueError(
                "`ids` must have a row for each prompt. "
                f"Received: shape {ids.shape} for {len(prompts)} prompts"
            )
        grid = self.tokenizer.config.grid_size
        if not 0 <= rows < grid:
            raise ValueError(f"`rows` must be in [0, {grid}). Received: rows={rows}")
        given = (ids, np.int32(rows * grid))
        return self._sample(prompts, num_samples, keep, seed, sampling_options, given)

    def stream(
        self,
        prompts: Sequence[str],
        every: int = 1,
        seed: int = 0,
        **sampling_options: Any,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Makes pictures and shows them while they grow, from the top.

        Args:
            prompts: list of str.
            every: int. Rows of ids between two pictures.
            seed: int of 64 bits.
            **sampling_options: `guidance_scale` to `top_p`, as `generate` takes them.

        Yields:
            A dict of `images`, uint8 `(prompts, height, width, 3)`, white where no id
            is sampled yet; `ids`, int32 `(prompts, sampled)`; `score`, float32
            `(prompts,)`, the likelihood of these ids; `prompt_tokens` and `truncated`
            as in `generate`, whose pictures the last ones are.

        Raises:
            ValueError: as `generate`, and where `every` is below 1.
            TypeError: as `generate`.
        """
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        text = self.vocabulary.encode_report(prompts)
        arguments, guided = self._arguments(text["ids"], seed, 1, sampling_options)
        tensors, state = self._begin[guided](*arguments[:2])
        grid = self.tokenizer.config.grid_size
        for rows in sorted({*range(every, grid, every), grid}):
            count = rows * grid
            options = arguments[1:]
            state = self._advance(tensors, state, options, np.int32(count))
            ids = keras.ops.convert_to_numpy(state["ids"])[:, :count]
            score = keras.ops.convert_to_numpy(state["score"]) / count
            sampling.check_likelihood(score)
            # The decoder wants all ids: those to come are those of the last row.
            last = np.tile(ids[:, -grid:], (1, grid - rows))
            images = self.decode(np.concatenate([ids, last], axis=1))
            images[:, rows * images.shape[1] // grid :] = 255
            yield {
                "images": images,
                "ids": ids,
                "score": score,
                "prompt_tokens": text["num_tokens"],
                "truncated": text["truncated"],
            }

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Turns pictures into ids.

        Args:
            images: uint8 `(batch, height, width, 3)`, of the tokenizer's size.

        Returns:
            int32 `(batch, num_tokens)`.

        Raises:
            ValueError: where they are of another size or type.
        """
        images = pixels.check_images(images, self.tokenizer.config.image_size)
        return self._encode(pixels.to_floats(images))

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Turns ids into pictures.

        Args:
            ids: int32 `(..., num_tokens)`, each in `[0, num_codes)`.

        Returns:
            uint8 `(..., height, width, 3)`.

        Raises:
            ValueError: where an id is out of range, or there are too few or many.
        """
        ids = self._check_ids(ids)
        images = self._decode(ids.reshape(-1, ids.shape[-1]))
        return images.reshape(*ids.shape[:-1], *images.shape[1:])

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """Says how well pictures fit texts, where there is a reranker.

        Args:
            images: uint8 `(batch, height, width, 3)`.
            prompts: list of str, one for each picture.

        Returns:
            float32 `(batch,)` in `[-1, 1]`.

        Raises:
            ValueError: where there is no reranker, or not as many of the one as of the
                other.
            TypeError: where `prompts` is no list of strings.
        """
        if self.reranker is None:
            raise ValueError("`score` needs a `reranker`, a CoCa. Received: none")
        images = pixels.check_images(images)
        if len(images) != len(prompts) or not len(images):
            raise ValueError(
                "`images` and `prompts` must be equally many, one at least. "
                f"Received: {len(images)} and {len(prompts)}"
            )
        return self._score(images, self.reader.encode(prompts))

    def upscale(self, images: np.ndarray, size: int | None = None) -> np.ndarray:
        """Enlarges pictures.

        Args:
            images: uint8 `(..., height, width, 3)`, of the tokenizer's size.
            size: int, one of `sizes`, or None to leave them as they are.

        Returns:
            uint8 `(..., size, size, 3)`.

        Raises:
            ValueError: where the size is another, or images are of another size.
        """
        self._check_size(size)
        images, native = np.asarray(images), self.tokenizer.config.image_size
        leading = images.shape[:-3]
        images = pixels.check_images(images.reshape(-1, *images.shape[-3:]), native)
        while size is not None and images.shape[1] < size:
            images = self._upscale(images)
        return images.reshape(*leading, *images.shape[1:])

    @property
    def sizes(self):
        """The sides, in pixels, that pictures can be made of: up to four times."""
        native = self.tokenizer.config.image_size
        scale = 1 if self.upsampler is None else self.upsampler.scale
        return tuple(native * n for n in sorted({1, scale, scale**2}) if n <= 4)

    def _check_size(self, size):
        if size is not None and size not in self.sizes:
            raise ValueError(
                f"`size` must be one of {self.sizes}, with this upsampler. "
                f"Received: size={size!r}"
            )

    def _check_ids(self, ids):
        ids, config = np.asarray(ids, "int32"), self.tokenizer.config
        if ids.ndim < 1 or ids.shape[-1] != config.num_tokens:
            raise ValueError(
                f"`ids` must have {config.num_tokens} columns. "
                f"Received: shape {ids.shape}"
            )
        check_ids(ids, config.num_codes)
        return ids

    def _sample(self, prompts, num_samples, keep, seed, options, given=()):
        keep = sampling.check_counts(num_samples, keep)
        text = self.vocabulary.encode_report(prompts)
        arguments, guided = self._arguments(text["ids"], seed, num_samples, options)
        outputs = self._generate_ids[guided](*arguments, *given)
        sampling.check_likelihood(outputs["score"])
        ids = outputs["ids"].reshape(len(prompts), num_samples, -1)
        score = outputs["score"]
        if self.reranker is not None:
            images = self._decode(outputs["ids"])
            score = self._score(images, self.reader.encode(prompts))
        score = score.reshape(len(prompts), num_samples)
        kept = best_first({"score": score, "ids": ids}, keep)
        return {
            "images": self.decode(kept["ids"]),
            **kept,
            "prompt_tokens": text["num_tokens"],
            "truncated": text["truncated"],
        }

    def _arguments(self, text_ids, seed, num_samples, options):
        """Checks options; returns arguments of `generate_ids`, and `guided`."""
        if not len(text_ids):
            raise ValueError("`prompts` must hold at least one. Received: none")
        options = sampling.DEFAULTS | options
        sampling.check_options(**options)
        rows, length = len(text_ids) * num_samples, self.parti.config.num_tokens
        columns = []
        for name, value in options.items():
            value = np.asarray(value, "int32" if name == "top_k" else "float32")
            is_schedule = name == "guidance_scale" and value.shape == (length,)
            if value.shape and not is_schedule:
                raise ValueError(
                    f"`{name}` must be a number; `guidance_scale` may be {length}, one "
                    f"for each position. Received: shape {value.shape}"
                )
            # A scale for each position, also where all are one: of arrays of two ranks
            # TensorFlow would make graphs that know no rank.
            shape = (rows, length) if name == "guidance_scale" else (rows,)
            columns.append(np.broadcast_to(value, shape))
        seeds = sampling.seed_words(
            sampling.sample_seeds(seed, num_samples, len(text_ids))
        )
        guided = bool(np.any(columns[0] != 1))
        return (text_ids, seeds, *columns), guided

    def save(self, path: str | os.PathLike) -> None:
        """Writes the parts as one folder.

        Args:
            path: str or path; `tokenizer/`, `parti/` and `vocabulary.model` in it, and
                where there are such parts `reranker/` and `upsampler/`.
        """
        path = Path(path)
        for name in OPTIONAL:
            part = getattr(self, name)
            if part is not None:
                part.save_dir(path / name)
            elif (path / name).is_dir():
                shutil.rmtree(path / name)  # of the chain that was there before
        self.tokenizer.save_dir(path / "tokenizer")
        self.parti.save_dir(path / "parti")
        self.vocabulary.save(path / VOCABULARY_FILE)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads a folder that `save` wrote.

        Raises:
            FileNotFoundError: where a part is missing.
            ValueError: where a part is broken.
        """
        from keras_parti.text import Vocabulary

        path = Path(path)
        tokenizer = ViTVQGAN.load_dir(path / "tokenizer")
        parti = Parti.load_dir(path / "parti")
        vocabulary = Vocabulary.from_file(
            path / VOCABULARY_FILE, parti.config.text_length
        )
        parts = {
            name: kind.load_dir(path / name)
            for name, kind in OPTIONAL.items()
            if (path / name).is_dir()
        }
        return cls(tokenizer, parti, vocabulary, **parts)
