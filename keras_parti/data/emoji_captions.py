"""TFDS builder of captioned emoji in three drawing styles.

Pictures: Google's Noto (Apache-2.0), Twitter's Twemoji (CC-BY-4.0: name it where you
show it) and Microsoft's Fluent 3D (MIT), from three npm packages (`emoji_source.py`).
"""

import collections
import dataclasses
import io
import json
import logging
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from keras_parti.data import emoji_catalog, emoji_source
from keras_parti.data.info import picture_info

logger = logging.getLogger(__name__)

IMAGE_SIZE = 64

# Examples by config and split of the three official packages; checked while building.
EXPECTED_COUNTS = {
    "small": {
        "train": 811,
        "validation": 41,
        "heldout_style": 13,
        "heldout_tone": 0,
    },
    "full": {
        "train": 10281,
        "validation": 410,
        "heldout_style": 136,
        "heldout_tone": 120,
    },
    "large": {
        "train": 3163,
        "validation": 136,
        "heldout_style": 38,
        "heldout_tone": 38,
    },
}


@dataclasses.dataclass
class EmojiConfig(tfds.core.BuilderConfig):
    """A choice of categories of `emoji.json` and of styles; `None` means all."""

    categories: tuple | None = None
    styles: tuple | None = None
    image_size: int = IMAGE_SIZE


class EmojiCaptions(tfds.core.GeneratorBasedBuilder):
    """Emoji of 64x64 pixels with captions such as "red apple in google style".

    Features: `image`; `captions`, wordings of name, tone and style, the canonical one
    first; `synonyms`, the same wordings with other names of the emoji, often none;
    `name`, without tone; `tone`, "" or as in "medium skin tone"; `style`; `category`;
    `key`, style and code points.

    Splits are fixed by a hash of the name (`emoji_catalog.split_of`), so those of
    `small` are those of `full`, restricted. `small` has no skin tones and therefore no
    split `heldout_tone`.

    `large` has 128x128 pixels: originals for an upsampler of 64x64 pictures. Only the
    fluent style is drawn as large. Its splits are those of `full`, restricted.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        EmojiConfig(
            name="small",
            description="Animals & Nature, Food & Drink.",
            categories=("Animals & Nature", "Food & Drink"),
        ),
        EmojiConfig(name="full", description="All categories, with skin tones."),
        EmojiConfig(
            name="large",
            description="All of one style, 128x128.",
            styles=("fluent",),
            image_size=2 * IMAGE_SIZE,
        ),
    ]

    def _info(self):
        return picture_info(
            self,
            self.builder_config.image_size,
            ("captions", "synonyms", "name", "style", "tone", "category", "key"),
            "Noto: Apache-2.0; Twemoji: CC-BY-4.0; Fluent: MIT",
            "https://github.com/iamcal/emoji-data",
        )

    def _split_generators(self, dl_manager):
        source = emoji_source.read_packages(
            Path(dl_manager.download_dir) / "emoji_captions"
        )
        config = self.builder_config
        members = split_pictures(source.files, config.categories, config.styles)
        if source.verified:
            check_counts(config.name, members)
        return {
            split: self._generate_examples(pictures, source.files)
            for split, pictures in members.items()
            if pictures
        }

    def _generate_examples(self, pictures, files):
        for emoji, style, path in pictures:
            key = f"{style}/{emoji.code}"
            yield (
                key,
                {
                    "image": decode_over_white(
                        files[style][path], path, self.builder_config.image_size
                    ),
                    "captions": emoji_catalog.captions(emoji.name, emoji.tone, style),
                    "synonyms": emoji_catalog.synonym_captions(emoji, style),
                    "name": emoji.name,
                    "style": style,
                    "tone": emoji.tone,
                    "category": emoji.category,
                    "key": key,
                },
            )


def split_pictures(files, categories=None, styles=None):
    """Lists the pictures of every split.

    Args:
        files: bytes by style and path, as `emoji_source.read_packages` returns them.
        categories: the categories to keep; all if None.
        styles: the styles to keep; all if None.

    Returns:
        A dict from each of `emoji_catalog.SPLITS` to a list of `(emoji, style, path)`.
    """
    emojis = emoji_catalog.parse(json.loads(files["google"]["emoji.json"]))
    pictures = [
        (emoji, style, path)
        for style in emoji_catalog.STYLES
        for emoji, path in _find_pictures(style, files[style], emojis)
    ]
    drawn, tones = collections.defaultdict(set), collections.defaultdict(set)
    for emoji, style, _ in pictures:
        drawn[emoji.name].add(style)
        tones[emoji.name].add(emoji.tone)
    members = {split: [] for split in emoji_catalog.SPLITS}
    for emoji, style, path in pictures:
        if (categories is None or emoji.category in categories) and (
            styles is None or style in styles
        ):
            name = emoji.name
            split = emoji_catalog.split_of(
                name, style, emoji.tone, drawn[name], tones[name]
            )
            members[split].append((emoji, style, path))
    return members


def _find_pictures(style, files, emojis):
    if style != "fluent":
        folder = f"img/{style}/{IMAGE_SIZE}"
        found = ((emoji, f"{folder}/{emoji.image}") for emoji in emojis)
        return [(emoji, path) for emoji, path in found if path in files]
    # A few Fluent pictures are there twice, under both spellings of their code points;
    # sorted, so that the same one is taken everywhere.
    by_code = {
        emoji_catalog.normal_code(Path(path).stem): path
        for path in sorted(files)
        if path.endswith(".webp")
    }
    found = (
        (emoji, by_code.get(emoji_catalog.normal_code(emoji.code))) for emoji in emojis
    )
    return [(emoji, path) for emoji, path in found if path]


def check_counts(config, members):
    """Raises ValueError unless the splits have the sizes written down here."""
    received = {split: len(pictures) for split, pictures in members.items()}
    expected = EXPECTED_COUNTS.get(config, received)
    if received != expected:
        raise ValueError(
            f"emoji_captions/{config} must have {expected} examples. "
            f"Received: {received}"
        )


def decode_over_white(data, name="picture", size=IMAGE_SIZE):
    """Decodes a picture and lays it over white.

    Larger pictures are made smaller after that: with the transparent pixels' hidden
    colours already gone, no dark fringe can come from them.

    Args:
        data: bytes of a PNG or WebP file, with or without transparency.
        name: what to call it in an error.
        size: int. Side of the result in pixels.

    Returns:
        uint8 array `(size, size, 3)`.

    Raises:
        ValueError: the bytes are no picture that can be decoded.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "WEBP")).convert("RGBA")
    except OSError as error:
        raise ValueError(f"{name} cannot be decoded: {error}") from error
    pixels = np.asarray(picture, np.float32)
    alpha = pixels[..., 3:] / 255
    pixels = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    if picture.size != (size, size):
        smaller = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
        pixels = np.asarray(smaller)
    return pixels
