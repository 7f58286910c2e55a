"""TFDS builder of natural photographs that packages of two registries ship.

43 photographs of landscapes, plants, animals, things and some people, each with its
author and licence (`photograph_catalog.py`): CC0, CC-BY, CC-BY-SA, GPL, LGPL, public
domain. Few, but large: about a thousand crops of 256x256. Eleven whole photographs are
held out, so that no part of what is measured was ever trained on.
"""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from keras_parti.data import photograph_source
from keras_parti.data.decoding import decode_picture
from keras_parti.data.info import picture_info
from keras_parti.data.photograph_catalog import PHOTOGRAPHS

CROP = 256  # pixels along each side of a crop

# Shorter sides that a photograph is resized to before it is cut: it is seen as a whole,
# in parts, and in details. Those above its own are left out.
LEVELS = (256, 512, 1024)

# Shorter side of `whole`: DALL-E's largest side for 256 pixels, 384, twice.
WHOLE = 768


class Photographs(tfds.core.GeneratorBasedBuilder):
    """Natural photographs, whole or cut into squares of 256 pixels.

    Config `crops`: squares that cover each photograph at up to three sizes. Config
    `whole`: each photograph once, its shorter side 768 pixels or less, for random crops
    while training.

    Features: `image`; `captions`, what the photograph shows; `name`, the same;
    `category`, the package; `credit`, author and licence; `key`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="crops", description="Squares of 256 pixels."),
        tfds.core.BuilderConfig(name="whole", description="Whole photographs."),
    ]

    def _info(self):
        return picture_info(
            self,
            CROP if self.builder_config.name == "crops" else None,
            ("captions", "name", "category", "credit", "key"),
            "Of each photograph its own: see the feature `credit`.",
        )

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.download_dir) / "photographs"
        return {
            split: self._generate_examples(folder, split)
            for split in ("train", "validation")
        }

    def _generate_examples(self, folder, split):
        rows = [photo for photo in PHOTOGRAPHS if photo.split == split]
        for photo, content in photograph_source.read_photographs(folder, rows):
            picture = Image.fromarray(decode_picture(content))
            if self.builder_config.name == "whole":
                pieces = {"whole": resized(picture, min(WHOLE, *picture.size))}
            else:
                pieces = dict(crops(picture))
            for place, piece in pieces.items():
                key = f"{photo.package}/{Path(photo.path).stem}/{photo.name}/{place}"
                image = io.BytesIO()
                piece.save(image, "PNG")
                image.seek(0)
                yield (
                    key,
                    {
                        "image": image,
                        "captions": [photo.name],
                        "name": photo.name,
                        "category": photo.package,
                        "credit": f"{photo.author}, {photo.licence}",
                        "key": key,
                    },
                )


def resized(picture, shorter):
    """Makes a picture smaller, to a given shorter side in pixels."""
    factor = shorter / min(picture.size)
    size = [max(shorter, round(side * factor)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def crops(picture):
    """Cuts a picture into squares of `CROP` pixels at each of `LEVELS`.

    Args:
        picture: `PIL.Image.Image`, at least `CROP` pixels along each side.

    Yields:
        Pairs of a name, "level-row-column", and a picture.
    """
    for level in LEVELS:
        if level > min(picture.size):
            continue
        smaller = resized(picture, level)
        for row, top in enumerate(offsets(smaller.height)):
            for column, left in enumerate(offsets(smaller.width)):
                box = (left, top, left + CROP, top + CROP)
                yield f"{level}-{row}-{column}", smaller.crop(box)


def offsets(side):
    """Where squares begin that cover most of a side, spread evenly, not overlapping."""
    count = side // CROP
    if count == 1:
        return [(side - CROP) // 2]
    return np.rint(np.linspace(0, side - CROP, count)).astype(int).tolist()
