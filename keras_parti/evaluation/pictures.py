"""A labelled picture set, as the measures here need it: its pictures lie in a file."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from keras_parti.data.arrays import load_npz, plain_texts
from keras_parti.pixels import to_uint8


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with what is said of them; all fields are equally long.

    Those of a picture set lie in a file, see `load_images`: in memory is what is said
    of them, some hundred bytes a picture. Those of an `.npz` file are in memory.
    """

    images: np.ndarray  # uint8 (batch, height, width, 3)
    prompts: np.ndarray  # str (batch,): the canonical caption
    synonyms: list  # of lists of str: captions with another name, often none
    names: np.ndarray  # str (batch,), without the tone
    styles: np.ndarray  # str (batch,)
    tones: np.ndarray  # str (batch,), empty where there is none

    def __post_init__(self):
        lengths = {f.name: len(getattr(self, f.name)) for f in dataclasses.fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The fields differ in length. Received: {lengths}")

    def __len__(self):
        return len(self.images)

    @classmethod
    def load(
        cls, name_or_dir: str | os.PathLike, split: str, image_size: int | None = None
    ) -> Self:
        """Reads a split of a captioned picture set.

        Args:
            name_or_dir: as `keras_parti.data.load` takes it, or an `.npz` file of
                `keras_parti.data.to_npz`, which holds one split.
            split: str.
            image_size: int or None. Side in pixels to resize them to; None keeps
                theirs. Those of an `.npz` file keep theirs.

        Raises:
            ValueError: an unknown set or split, or a set without captions.
            FileNotFoundError: no such file or folder.
        """
        if str(name_or_dir).endswith(".npz"):
            return cls.from_arrays(load_npz(name_or_dir))
        from keras_parti.data.datasets import load  # needs TensorFlow

        return cls.from_examples(load(name_or_dir, split, image_size=image_size))

    @classmethod
    def from_examples(cls, examples: Iterable[dict[str, Any]]) -> Self:
        """Collects the single examples of `keras_parti.data.load`."""
        texts: list[dict[str, Any]] = []

        def read():
            for example in examples:
                texts.append(plain_texts(example))
                yield example["image"]

        images = in_a_file(read())
        columns = {key: [text[key] for text in texts] for key in (texts or [{}])[0]}
        return cls.from_arrays({"image": images, **columns})

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Takes the columns of `keras_parti.data.load_npz`."""
        if not {"captions", "name"} <= set(arrays) and len(arrays["image"]):
            raise ValueError(
                f"The pictures need `captions` and `name`. Received: {sorted(arrays)}"
            )
        empty = [""] * len(arrays["image"])
        return cls(
            np.asarray(arrays["image"], np.uint8),
            # A folder of pictures may lack captions: the prompt is then empty.
            np.array([c[0] if c else "" for c in arrays.get("captions", [])], np.str_),
            list(arrays.get("synonyms", [[] for _ in empty])),
            np.array(arrays.get("name", empty), np.str_),
            np.array(arrays.get("style", empty), np.str_),
            np.array(arrays.get("tone", empty), np.str_),
        )

    def take(
        self,
        indices: Sequence[int] | np.ndarray,
        prompts: Sequence[str] | np.ndarray | None = None,
    ) -> Self:
        """Returns the pictures of some indices, optionally under other prompts."""
        taken = dataclasses.replace(
            self,
            images=self.images[indices],
            prompts=self.prompts[indices],
            synonyms=[self.synonyms[index] for index in indices],
            names=self.names[indices],
            styles=self.styles[indices],
            tones=self.tones[indices],
        )
        if prompts is None:
            return taken
        return dataclasses.replace(taken, prompts=np.array(prompts, np.str_))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """Returns all pictures of several sets, in their order, in a file."""
        parts = [part for part in parts if len(part)]
        if not parts:
            raise ValueError("There are no pictures in any of the sets.")
        images = in_a_file(image for part in parts for image in part.images)
        synonyms = [texts for part in parts for texts in part.synonyms]
        prompts, names, styles, tones = (
            np.concatenate([getattr(part, field) for part in parts])
            for field in ("prompts", "names", "styles", "tones")
        )
        return cls(images, prompts, synonyms, names, styles, tones)


def load_images(
    name_or_dir: str | os.PathLike, split: str, image_size: int
) -> np.ndarray:
    """Reads the pictures of a split, whether or not anything is said of them.

    Args:
        name_or_dir: as `keras_parti.data.load` takes it.
        split: str.
        image_size: int. Side in pixels that they are resized to.

    Returns:
        uint8 `(n, image_size, image_size, 3)`, in a file that nobody else sees and that
        goes with the array: however many there are, those in use alone are in memory.
    """
    from keras_parti.data.datasets import load  # needs TensorFlow

    examples = load(name_or_dir, split, image_size=image_size)
    images = in_a_file(example["image"] for example in examples)
    return images.reshape(-1, image_size, image_size, 3)  # where there are none, too


def in_a_file(pictures):
    """Writes pictures one by one to a file that nobody else sees.

    Args:
        pictures: iterable of arrays `(height, width, 3)`, uint8 or float in [0, 1], all
            of one size.

    Returns:
        uint8 `(n, height, width, 3)`, read-only. The file goes with the array: however
        many there are, those in use alone are in memory.

    Raises:
        ValueError: pictures of several sizes.
    """
    shape, count = (0, 0, 3), 0
    with tempfile.TemporaryFile() as file:
        for picture in map(to_uint8, pictures):
            if count and picture.shape != shape:
                raise ValueError(
                    "All pictures must have one size: give one to resize them to. "
                    f"Received: {shape} and {picture.shape}"
                )
            shape = picture.shape
            file.write(picture.tobytes())
            count += 1
        file.flush()
        if not count:
            return np.zeros((0, *shape), np.uint8)
        return np.memmap(file, np.uint8, "r", shape=(count, *shape))


def load_splits(name_or_dir, image_size=None):
    """Reads all splits of a captioned picture set that hold pictures.

    Args:
        name_or_dir: as `keras_parti.data.load` takes it.
        image_size: int or None. Side in pixels to resize them to; None keeps theirs,
            which must be the same then.

    Returns:
        A dict of split name to `Pictures`.
    """
    from keras_parti.data.datasets import splits  # needs TensorFlow

    return {
        name: Pictures.load(name_or_dir, name, image_size)
        for name, count in splits(name_or_dir).items()
        if count
    }
