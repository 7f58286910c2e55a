"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import keras_parti

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(keras_parti.__path__, "keras_parti.")
    if not m.name.endswith("__main__")  # would run the command
)


@pytest.mark.parametrize("name", ["keras_parti", *MODULES])
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0
