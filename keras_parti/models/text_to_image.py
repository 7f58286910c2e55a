"""The chain: prompts to pictures, through text ids, image ids and the decoder."""

from pathlib import Path

import keras
import numpy as np

from keras_parti import sampling
from keras_parti.models.parti import Parti
from keras_parti.models.vit_vqgan import ViTVQGAN

VOCABULARY_FILE = "vocabulary.model"


class TextToImage:
    """Makes pictures of prompts: vocabulary → Parti → ViT-VQGAN decoder.

    Args:
        tokenizer: `ViTVQGAN`, whose decoder turns ids into pictures.
        parti: `Parti`, trained on the ids of that tokenizer.
        vocabulary: `keras_parti.text.Vocabulary` of the parti's text length.

    Raises:
        ValueError: where the three do not fit together.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), figure 3
    """

    def __init__(self, tokenizer, parti, vocabulary):
        pairs = [
            ("num_codes", tokenizer.config.num_codes, parti.config.num_codes),
            ("num_tokens", tokenizer.config.num_tokens, parti.config.num_tokens),
            ("text_length", vocabulary.length, parti.config.text_length),
        ]
        for name, ours, theirs in pairs:
            if ours != theirs:
                raise ValueError(
                    f"`{name}` of `parti` must be {ours}, as that of the tokenizer or "
                    f"vocabulary. Received: {name}={theirs}"
                )
        if vocabulary.size > parti.config.text_vocab_size:
            raise ValueError(
                f"`text_vocab_size` of `parti` must be at least {vocabulary.size}, the "
                "size of the vocabulary. "
                f"Received: text_vocab_size={parti.config.text_vocab_size}"
            )
        self.tokenizer = tokenizer
        self.parti = parti
        self.vocabulary = vocabulary
        self._generate_ids = sampling.compiled(
            lambda *arguments: sampling.generate_ids(parti, *arguments), parti
        )
        self._decode = sampling.compiled(
            lambda ids: {"images": to_uint8(tokenizer.decode(ids))}, tokenizer
        )

    def generate(
        self,
        prompts,
        num_samples=1,
        keep=1,
        guidance_scale=sampling.DEFAULTS["guidance_scale"],
        temperature=sampling.DEFAULTS["temperature"],
        top_k=sampling.DEFAULTS["top_k"],
        top_p=sampling.DEFAULTS["top_p"],
        seed=0,
    ):
        """Makes pictures; the best of several, by Parti's own likelihood.

        Args:
            prompts: list of str. The empty prompt gives any picture.
            num_samples: int. Pictures sampled for a prompt; the j-th is the picture
                of seed `seed + j`.
            keep: int, at most `num_samples`. Pictures returned, best first.
            guidance_scale: float in `[0, 30]`; 1 is no guidance.
            temperature: float in `[0, 10]`; 0 takes the likeliest id.
            top_k: int; ids are drawn among the k likeliest, 0 among all.
            top_p: float in `[0, 1]`; ids are drawn among the fewest whose
                probabilities add up to p.
            seed: int of 64 bits. Equal seeds give equal pictures.

        Returns:
            A dict of `images`, uint8 `(prompts, keep, height, width, 3)`; `score`,
            float32 `(prompts, keep)`, the mean log-likelihood of a token in nats;
            `ids`, int32 `(prompts, keep, num_tokens)`; `num_tokens`, int32
            `(prompts,)`, ids of the whole prompt; `truncated`, bool `(prompts,)`.

        Raises:
            ValueError: where an option is outside its range.
            TypeError: where `prompts` is no list of strings.
        """
        sampling.check_counts(num_samples, keep)
        options = {
            "guidance_scale": np.float32(guidance_scale),
            "temperature": np.float32(temperature),
            "top_k": np.int32(top_k),
            "top_p": np.float32(top_p),
        }
        sampling.check_options(**options)
        text = self.vocabulary.encode_report(prompts)
        rows = len(prompts) * num_samples
        outputs = self._generate_ids(
            np.repeat(text["ids"], num_samples, axis=0),
            sampling.seed_words(sampling.sample_seeds(seed, num_samples, len(prompts))),
            *(np.full(rows, option) for option in options.values()),
        )
        ids = outputs["ids"].reshape(len(prompts), num_samples, -1)
        score = outputs["score"].reshape(len(prompts), num_samples)
        best = np.argsort(-score, axis=1, kind="stable")[:, :keep]
        ids = np.take_along_axis(ids, best[..., None], axis=1)
        return {
            "images": self.decode(ids),
            "score": np.take_along_axis(score, best, axis=1),
            "ids": ids,
            "num_tokens": text["num_tokens"],
            "truncated": text["truncated"],
        }

    def decode(self, ids):
        """Turns ids into pictures.

        Args:
            ids: int32 `(..., num_tokens)`, each in `[0, num_codes)`.

        Returns:
            uint8 `(..., height, width, 3)`.

        Raises:
            ValueError: where an id is out of range, or there are too few or many.
        """
        ids, config = np.asarray(ids, "int32"), self.tokenizer.config
        if ids.ndim < 1 or ids.shape[-1] != config.num_tokens:
            raise ValueError(
                f"`ids` must have {config.num_tokens} columns. "
                f"Received: shape {ids.shape}"
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < config.num_codes:
            raise ValueError(
                f"`ids` must be in [0, {config.num_codes}). "
                f"Received: {ids.min()} to {ids.max()}"
            )
        images = self._decode(ids.reshape(-1, config.num_tokens))["images"]
        return images.reshape(*ids.shape[:-1], *images.shape[1:])

    def save(self, path):
        """Writes the parts as one folder.

        Args:
            path: str or path; `tokenizer/`, `parti/` and `vocabulary.model` in it.
        """
        path = Path(path)
        self.tokenizer.save_dir(path / "tokenizer")
        self.parti.save_dir(path / "parti")
        self.vocabulary.save(path / VOCABULARY_FILE)

    @classmethod
    def load(cls, path):
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
        return cls(tokenizer, parti, vocabulary)


def to_uint8(images):
    """Rounds float images in `[0, 1]` to uint8 in `[0, 255]`."""
    return keras.ops.cast(keras.ops.round(images * 255.0), "uint8")
