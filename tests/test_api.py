"""`docs/api.md` is what `make docs` writes, and nothing public is missing in it."""

import importlib
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

import keras_parti

api = SimpleNamespace(**runpy.run_path(Path(__file__).parents[1] / "docs" / "api.py"))


@pytest.fixture(scope="module")
def package():
    return api.load()


@pytest.fixture(scope="module")
def public(package):
    """Pairs of a qualified name and what it names, of all packages."""
    return [
        (f"{name}.{each}", value)
        for name in api.PACKAGES
        for each, value in api.entries(package[name]).items()
    ]


def test_the_page_is_what_the_docstrings_say_now(package):
    assert api.PAGE.read_text(encoding="utf-8") == api.page(package), "make docs"


def test_every_package_that_users_import_is_on_the_page():
    modules = {"presets"} | set(api.PACKAGES)
    for name in keras_parti.__all__:
        value = getattr(keras_parti, name)
        home = getattr(value, "__module__", "")
        if name != "__version__":
            assert name in modules or home.split(".")[1] in modules, name


@pytest.mark.parametrize("name", api.PACKAGES)
def test_every_name_of_all_is_on_the_page_and_exists(name, package):
    module = importlib.import_module(f"keras_parti.{name}")
    listed = {each.split(".")[0] for each in api.entries(package[name])}
    assert listed == set(module.__all__)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


def test_everything_public_has_a_docstring_that_ends_as_a_sentence(public):
    assert [
        name for name, value in public if not api.summary(value).endswith(".")
    ] == []


def test_every_parameter_of_what_is_public_has_a_type(public):
    functions = []
    for name, value in public:
        methods = api.methods(value) if value.is_class else {}
        functions += [(f"{name}.{each}", method) for each, method in methods.items()]
        own = value.members.get("__init__") if value.is_class else value
        functions += [(name, own)] if own is not None and own.is_function else []
    bare = [
        f"{name}({each.name})"
        for name, function in functions
        for each in function.parameters
        if each.annotation is None and each.name not in ("self", "cls")
    ]
    assert bare == []
    returning = [name for name, function in functions if function.returns is None]
    assert returning == []
