"""The one thing all models share: being described by a frozen dataclass."""

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, Self

import h5py
import keras

from keras_parti import presets
from keras_parti.files import check_room, written_whole

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"


class ConfigModel(keras.Model):
    """A model whose architecture is one frozen dataclass.

    A subclass sets `config_class`, takes the config as its first argument and
    passes `config` and `**kwargs` on. It gets `get_config`, `from_config`,
    `from_preset` and a folder format in return, none of which can drift from the
    fields.

    Args:
        config: instance of `config_class`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Raises:
        TypeError: where `config` is of another class.
    """

    config_class: type[Any]

    def __init__(self, config: Any, **kwargs: Any) -> None:
        if not isinstance(config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} takes a {self.config_class.__name__}. "
                f"Received: {config!r}"
            )
        super().__init__(**kwargs)
        self.config = config

    @classmethod
    def from_preset(
        cls, name: str, dtype: str | keras.DTypePolicy | None = None, **overrides: Any
    ) -> Self:
        """Builds the model of a name in `keras_parti.presets`.

        Args:
            name: str. A key of this class's table.
            dtype: str or `keras.DTypePolicy`, such as `"mixed_bfloat16"`.
            **overrides: fields of the config to change.

        Raises:
            ValueError: where the table has no such name.

        Example:
            >>> from keras_parti.models import Parti
            >>> Parti.from_preset("parti_tiny", dropout_rate=0.0).count_params()
            14079
        """
        return cls(cls.preset_config(name, **overrides), dtype=dtype)

    @classmethod
    def preset_config(cls, name: str, **overrides: Any) -> Any:
        """Returns the config of a name in `keras_parti.presets`, without a model."""
        table = presets.TABLES[cls.__name__]
        if name not in table:
            raise ValueError(
                f"No preset {name!r} for {cls.__name__}. Known: {', '.join(table)}"
            )
        return cls.config_class(**{**table[name].config, **overrides})

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": dataclasses.asdict(self.config),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        return cls(cls.config_class(**config.pop("config")), **config)

    def save_dir(self, path: str | os.PathLike) -> None:
        """Writes the model as a folder of `config.json` and `model.weights.h5`.

        A killed process or a full disk leaves each file as it was before.

        Args:
            path: str or path. Made where it does not exist.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        description = {"model": type(self).__name__, **dataclasses.asdict(self.config)}
        with written_whole(path / CONFIG_FILE) as part:
            part.write_text(json.dumps(description, indent=2) + "\n")
        with written_whole(path / WEIGHTS_FILE) as part:
            # HDF5 spends 2.2 kB on each array beside its numbers.
            check_room(part, sum(4 * math.prod(w.shape) + 4096 for w in self.weights))
            self.save_weights(part)

    @classmethod
    def load_dir(
        cls, path: str | os.PathLike, dtype: str | keras.DTypePolicy | None = None
    ) -> Self:
        """Reads a model that `save_dir` wrote.

        Args:
            path: str or path of the folder.
            dtype: str or `keras.DTypePolicy`, such as `"mixed_bfloat16"`.

        Raises:
            FileNotFoundError: where the folder or one of its files is missing.
            ValueError: where the folder holds a model of another class, or fields
                that this class does not know.

        Example:
            >>> from keras_parti.models import WDSR
            >>> model = WDSR.from_preset("wdsr_tiny")
            >>> model.save_dir("upsampler")
            >>> WDSR.load_dir("upsampler").fingerprint() == model.fingerprint()
            True
        """
        path = Path(path)
        for file in (path, path / CONFIG_FILE, path / WEIGHTS_FILE):
            if not file.exists():
                raise FileNotFoundError(
                    f"A folder of {cls.__name__} holds {CONFIG_FILE} and "
                    f"{WEIGHTS_FILE}. Missing: {file}"
                )
        try:
            description = json.loads((path / CONFIG_FILE).read_text())
            found = description.pop("model")
            if found != cls.__name__:
                raise ValueError(f"it describes a {found}")
            config = cls.config_class(**description)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path / CONFIG_FILE} does not describe a {cls.__name__}: {error}"
            ) from error
        model = cls(config, dtype=dtype)
        model.load_weights(path / WEIGHTS_FILE)
        return model

    def load_weights(self, filepath: str | os.PathLike, **kwargs: Any) -> None:
        """Reads weights as Keras does, but of no file that fills the memory.

        Raises:
            OSError: no such file, or none of HDF5.
            ValueError: its arrays unfold into more than the model has, or others.
        """
        if str(filepath).endswith(".h5"):
            # Four bytes a number; an optimiser that was saved, too, has as many again
            # for each average that it keeps, of which we know five.
            most = 8 * sum(4 * math.prod(v.shape) for v in self.variables) + 2**20
            size = _unfolded(filepath)
            if size > most:
                raise ValueError(
                    f"{filepath} is not of this model: its arrays take {size:,} bytes, "
                    f"of {most:,}"
                )
        super().load_weights(filepath, **kwargs)

    def fingerprint(self) -> str:
        """Returns a hex digest, 16 digits, of the config and all weights."""
        digest = hashlib.sha256(repr(self.config).encode())
        for weight in self.weights:
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
        return digest.hexdigest()[:16]


def _unfolded(path):
    """Returns the bytes that the arrays of an HDF5 file take in memory.

    Zeros that nobody wrote take none on the disk.
    """
    sizes = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
    return sum(sizes)


def check_positive(config):
    """Raises `ValueError` where an integer field of a config is below 1."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is int and (not isinstance(value, int) or value < 1):
            raise ValueError(
                f"`{field.name}` must be a positive integer. "
                f"Received: {field.name}={value!r}"
            )


def check_ids(ids, count):
    """Raises `ValueError` where ids are outside of `[0, count)`.

    Ids inside a graph are not known yet, and pass.
    """
    try:
        ids = keras.ops.convert_to_numpy(ids)
    except (NotImplementedError, TypeError):  # what TensorFlow and JAX say of tracers
        return
    if ids.size and not 0 <= ids.min() <= ids.max() < count:
        raise ValueError(
            f"`ids` must be in [0, {count}). Received: {ids.min()} to {ids.max()}"
        )


def check_finite_weights(model, name):
    """Raises `ValueError` where a weight of a model is NaN or infinite."""
    for weight in model.weights:
        if not keras.ops.all(keras.ops.isfinite(weight)):
            raise ValueError(
                f"`{name}` must have finite weights. Received: NaN or infinity in "
                f"{weight.path}"
            )


def check_heads(dim, heads, name):
    """Raises `ValueError` where heads do not divide a width."""
    if dim % heads:
        raise ValueError(
            f"`{name}heads` must divide `{name}dim`, {dim}. "
            f"Received: {name}heads={heads}"
        )
