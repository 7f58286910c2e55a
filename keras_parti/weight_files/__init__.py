"""Weight files of other libraries as NumPy arrays; nothing of a file is ever run."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_parti.weight_files.safetensors import read_safetensors
from keras_parti.weight_files.torch_file import read_torch_file

__all__ = ["read_safetensors", "read_torch_file", "read_weight_file"]


def read_weight_file(
    path: str | os.PathLike, wanted: Callable[[str], bool] | None = None
) -> dict[str, np.ndarray]:
    """Reads a file of `.safetensors`, else one that PyTorch has saved.

    Args:
        path: str or path.
        wanted: function of a tensor's name, whether it is read. None: all are.

    Returns:
        A dict of name to array, in the file's dtype; bfloat16 becomes float32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, a damaged file, or a pickle that names anything but
            tensors.
    """
    safe = Path(path).suffix == ".safetensors"
    return (read_safetensors if safe else read_torch_file)(path, wanted)
