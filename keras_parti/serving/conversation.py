"""What a text-to-image model is asked, and what is made of its answers."""

from collections.abc import Sequence

import numpy as np

from keras_parti.serving.exchange import Exchange, offered
from keras_parti.serving.pictures import files, read_picture
from keras_parti.serving.rows import (
    ROWS_PER_REQUEST,
    draw_columns,
    label_column,
    utf8,
)


class Conversation(Exchange):
    """The requests of both clients for pictures, ids and scores."""

    @offered
    async def generate(
        self,
        prompts: Sequence[str],
        num_samples: int = 16,
        keep: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Draws pictures of prompts; as `TextToImage.generate`, on the server.

        With the `best` of the client the server chooses (`generate_best`); with other
        numbers each sample is a row of `generate`, and the client chooses.

        Args:
            prompts: list of str. The empty prompt draws without condition.
            num_samples: int. Pictures drawn for each prompt, with the seeds `seed`,
                `seed + 1`, ...
            keep: int. How many of them come back, those of the best score first; None
                for 4, or all where fewer are drawn.
            guidance_scale: float in [0, 30]. 1 is no guidance. This and the next
                three are `sampling.DEFAULTS` where they are None.
            temperature: float in [0, 10]. 0 takes the likeliest id each time.
            top_k: int. Draws from the k likeliest ids; 0 from all.
            top_p: float in [0, 1]. Draws from the fewest ids of this probability.
            seed: int of 64 bits. The same seed gives the same pictures.
            size: int. Pixels a side, as `upscale` takes it; None leaves the pictures
                as they are drawn.

        Returns:
            A dict of arrays: `images` uint8 `(prompts, keep, height, width, 3)`,
            `score` float32 `(prompts, keep)`, `ids` int32 `(prompts, keep, length)`,
            `prompt_tokens` int32 and `truncated` bool `(prompts,)`.

        Raises:
            ValueError: The server refuses the request; its words.
            TypeError: `prompts` holds something else than text.
            OSError: The server is gone or busy (`ConnectionError`), too slow
                (`TimeoutError`), or fails.
        """
        # Deferred, because it imports Keras, and with it a backend.
        from keras_parti import sampling

        texts = utf8(prompts)
        keep = sampling.check_counts(num_samples, keep)
        seeds = sampling.sample_seeds(seed, num_samples, len(texts))
        given = (guidance_scale, temperature, top_k, top_p)
        options = _chosen(given, sampling.DEFAULTS)
        if size is not None:
            # Drawing is what takes long, so one pixel asks first whether this goes.
            await self._enlarge(np.zeros([1, 1, 1, 3], np.uint8), size)
        if (num_samples, keep) == self.best:
            rows = await self._draw_best(texts, seed, keep, options)
        else:
            rows = await self._draw("prompt", texts, seeds, keep, options)
        images = np.stack([[read_picture(p) for p in r] for r in rows["image_bytes"]])
        if size is not None:
            large = await self._enlarge(images.reshape(-1, *images.shape[2:]), size)
            images = large.reshape(*images.shape[:2], *large.shape[1:])
        return {
            "images": images,
            "score": rows["score"],
            "ids": rows["ids"],
            "prompt_tokens": rows["prompt_tokens"],
            "truncated": rows["truncated"],
        }

    @offered
    async def generate_class(
        self,
        labels: Sequence[int] | np.ndarray,
        num_samples: int = 1,
        keep: int = 1,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        """Draws pictures of classes; as `ClassToImage.generate`, on the server.

        Args:
            labels: list of int, as the model's card numbers its classes.
            num_samples: int. This and the others are those of `generate`; without
                `guidance_scale` there is no guidance.
            keep: int.
            guidance_scale: float in [0, 30].
            temperature: float in [0, 10].
            top_k: int.
            top_p: float in [0, 1].
            seed: int of 64 bits.

        Returns:
            A dict of arrays: `images` uint8 `(labels, keep, height, width, 3)`, `score`
            float32 `(labels, keep)` and `ids` int32 `(labels, keep, length)`.

        Raises:
            ValueError, OSError: As `generate`; also where the model draws no classes.
        """
        from keras_parti import sampling
        from keras_parti.models.class_to_image import DEFAULTS

        labels = label_column(labels)
        sampling.check_counts(num_samples, keep)
        seeds = sampling.sample_seeds(seed, num_samples, len(labels))
        given = (guidance_scale, temperature, top_k, top_p)
        options = _chosen(given, DEFAULTS)
        rows = await self._draw("label", labels, seeds, keep, options)
        pictures = [[read_picture(p) for p in row] for row in rows.pop("image_bytes")]
        return {"images": np.stack(pictures)} | rows

    @offered
    async def encode(self, images: np.ndarray | Sequence[bytes]) -> np.ndarray:
        """Turns pictures into ids.

        Args:
            images: `(batch, height, width, 3)`, uint8, or float in [0, 1]; or a list
                of bytes of PNG or JPEG files. Another size than the model's is
                resized by the server.

        Returns:
            int32 `(batch, length)`.

        Raises:
            ValueError, OSError: As `generate`.
        """
        rows = [{"image_bytes": content} for content in files(images)]
        return (await self._predict_rows("encode", rows))["ids"]

    @offered
    async def decode(self, ids: np.ndarray) -> np.ndarray:
        """Turns ids into pictures.

        Args:
            ids: int `(batch, length)`.

        Returns:
            uint8 `(batch, height, width, 3)`.

        Raises:
            ValueError, OSError: As `generate`.
        """
        ids = np.asarray(ids)
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                "ids must be integers of shape (batch, length). "
                f"Received: {ids.dtype} of shape {ids.shape}"
            )
        rows = [{"ids": row} for row in ids.astype(np.int32)]
        outputs = await self._predict_rows("decode", rows)
        return np.stack([read_picture(content) for content in outputs["image_bytes"]])

    @offered
    async def upscale(
        self, images: np.ndarray | Sequence[bytes], size: int | None = None
    ) -> np.ndarray:
        """Enlarges pictures, on a model exported with an upsampler.

        Args:
            images: as `encode` takes them.
            size: int. Pixels a side, one of those that the model's card names; None
                enlarges once.

        Returns:
            uint8 `(batch, height, width, 3)`.

        Raises:
            ValueError, OSError: As `generate`; also where the model has no upsampler.
        """
        return await self._enlarge(images, size)

    @offered
    async def score(
        self, images: np.ndarray | Sequence[bytes], prompts: Sequence[str]
    ) -> np.ndarray:
        """Says how well pictures fit texts, on a model exported with a CoCa.

        Args:
            images: as `encode` takes them.
            prompts: list of str, one for each picture.

        Returns:
            float32 `(batch,)`.

        Raises:
            ValueError, TypeError, OSError: As `generate`; also where the model has no
                CoCa.
        """
        contents, texts = files(images), utf8(prompts)
        if len(contents) != len(texts):
            raise ValueError(
                "images and prompts must be equally many. "
                f"Received: {len(contents)} and {len(texts)}"
            )
        pairs = zip(contents, texts, strict=True)
        rows = [{"image_bytes": content, "prompt": text} for content, text in pairs]
        return (await self._predict_rows("score", rows))["score"]

    async def _enlarge(self, images, size):
        wanted = {} if size is None else {"size": np.int32(size)}
        rows = [{"image_bytes": content} | wanted for content in files(images)]
        outputs = await self._predict_rows("upscale", rows)
        return np.stack([read_picture(content) for content in outputs["image_bytes"]])

    async def _draw_best(self, texts, seed, keep, options):
        """Lets the server choose; one prompt a request, for it is many samples."""
        replies = [
            await self._predict("generate_best", draw_columns([text], [seed], options))
            for text in texts
        ]
        rows = {name: np.concatenate([r[name] for r in replies]) for name in replies[0]}
        if rows["score"].shape[1] != keep:
            raise ValueError(
                f"The model {self.model} keeps {rows['score'].shape[1]} pictures in "
                f"generate_best, not {keep}. Give the client its `best`."
            )
        return rows

    async def _draw(self, name, values, seeds, keep, options):
        """Asks for each sample as a row of a signature, and chooses here."""
        from keras_parti.models.choosing import best_first

        signature = {"prompt": "generate", "label": "generate_class"}[name]
        num_samples = len(seeds) // len(values)
        repeated = [value for value in values for _ in range(num_samples)]
        columns = draw_columns(repeated, seeds, options, name)
        replies = [
            await self._predict(
                signature,
                {n: c[start : start + ROWS_PER_REQUEST] for n, c in columns.items()},
            )
            for start in range(0, len(repeated), ROWS_PER_REQUEST)
        ]
        rows = {
            name: np.concatenate([reply[name] for reply in replies]).reshape(
                len(values), num_samples, *replies[0][name].shape[1:]
            )
            for name in replies[0]
        }
        drawn = {n: rows.pop(n) for n in ("image_bytes", "ids", "score")}
        return best_first(drawn, keep) | {n: each[:, 0] for n, each in rows.items()}


def _chosen(given, defaults):
    """The options of a draw, by name: those that are None are the defaults."""
    pairs = zip(defaults.items(), given, strict=True)
    return {name: each if own is None else own for (name, each), own in pairs}
