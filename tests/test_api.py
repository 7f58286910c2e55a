"""`docs/api.md` is what `make docs` writes, and nothing public is missing in it."""

import ast
import importlib
import re
import runpy
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from guides import PAGES, ROOT, blocks

import keras_parti

api = SimpleNamespace(**runpy.run_path(Path(__file__).parents[1] / "docs" / "api.py"))

TEXTS = [*PAGES, *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "SECURITY"))]
TEXTS += [ROOT / "saved_models" / "README.md", ROOT / "examples" / "README.md"]
SCRIPTS = sorted((ROOT / "examples").rglob("*.py"))


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


def resolve(path):
    """What a dotted path names, `keras_parti` first."""
    found, *parts = path.split(".")
    value = importlib.import_module(found)
    for part in parts:
        found = f"{found}.{part}"
        if not hasattr(value, part):
            importlib.import_module(found)
        value = getattr(value, part)
    return value


@pytest.fixture(scope="module")
def published(public):
    """All that is on the page, and the modules that it stands in."""
    names = {f"keras_parti.{name}" for name, _ in public}
    names |= {name.rpartition(".")[0] for name in names}
    names |= {f"keras_parti.{name}" for name in keras_parti.__all__}
    return [keras_parti, *map(resolve, sorted(names))]


def taken(code):
    """Dotted paths of all that Python code takes from this library."""
    modules, paths, nodes = {}, [], list(ast.walk(ast.parse(code)))
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            package = getattr(node, "module", None)
            for each in node.names:
                path = f"{package}.{each.name}" if package else each.name
                if path.split(".")[0] == "keras_parti":
                    paths.append(path)
                    if isinstance(resolve(path), ModuleType):
                        modules[each.asname or each.name] = path
    for node in nodes:
        owner = modules.get(getattr(getattr(node, "value", None), "id", None))
        if isinstance(node, ast.Attribute) and owner:
            paths.append(f"{owner}.{node.attr}")
    return paths


def users():
    """Pairs of a file's name and a path that it takes, in its code or its words."""
    for file in (*SCRIPTS, *TEXTS):
        text = file.read_text(encoding="utf-8")
        codes = [text]
        if file in TEXTS:
            codes = [code for language, code in blocks(file) if language == "python"]
            words = re.findall(r"`(keras_parti\.[\w.]*\w)", text)
            yield from ((file.name, path) for path in words)
        for code in codes:
            yield from ((file.name, path) for path in taken(code))


def test_what_guides_and_examples_use_is_on_the_page(published):
    private = set()
    for name, path in users():
        values = [resolve(path), resolve(path.rpartition(".")[0] or path)]
        # Of a public class all attributes count.
        known = values if isinstance(values[1], type) else values[:1]
        if not any(each is other for each in known for other in published):
            private.add(f"{name}: {path}")
    assert sorted(private) == []
