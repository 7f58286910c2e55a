"""The one word of the annotations that neither Python nor NumPy has."""

from typing import Any, TypeAlias

# Of the backend in use, or a NumPy array where a function turns it into one: as Keras
# runs on several, no class says it. Docstrings say shapes, dtypes and ranges.
Tensor: TypeAlias = Any
