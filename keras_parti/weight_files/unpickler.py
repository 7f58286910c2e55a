"""An unpickler that makes what it was told to, and refuses all else."""

import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO

# What torn or foreign files provoke in an unpickler and in what reads its outcome.
DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,  # with it, what cannot be decoded
)


class NamedOnly(pickle.Unpickler):
    """Reads a pickle in which every name stands for something of ours.

    A pickle may name any function of the machine to be called. Here names are looked up
    in a table and never imported.

    Args:
        file: binary file, open for reading.
        allowed: dict of pairs of module and name to what stands for them.
    """

    def __init__(self, file: BinaryIO, allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module, name):
        if (module, name) not in self._allowed:
            raise ValueError(
                f"it asks for `{module}.{name}`, which arrays do not need: nothing of "
                f"it was run. Allowed: {', '.join(map('.'.join, self._allowed))}"
            )
        return self._allowed[module, name]
