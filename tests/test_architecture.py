"""Imports point one way, and the models know no TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import keras_parti

ROOT = Path(keras_parti.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A module imports from its own level and from those before it.
LEVELS = [
    {"files", "lazy", "pixels", "presets", "typing", "web", "weight_files"},
    {"layers"},
    {
        "compiled",
        "decoding",
        "losses",
        "metrics",
        "optimizers",
        "sampling",
        "text",
        "data",
    },
    {"models"},
    {"training", "serving", "evaluation", "mesh"},
    {"cli", "__init__", "__main__"},
]
# TensorFlow is wanted by some of their functions, and imported there.
LAZY = {"compiled", "decoding", "sampling", "text", "cli", "__init__", "__main__"}
# These run on every backend: no function of theirs needs TensorFlow.
PURE = {"files", "lazy", "pixels", "presets", "typing", "layers", "losses", "metrics"}
PURE |= {"models", "optimizers", "web", "weight_files"}
TENSORFLOW = {"tensorflow", "tensorflow_text", "tensorflow_datasets", "mesh_tensorflow"}

every_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: str(path.relative_to(ROOT))
)


def own(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def level(name):
    (found,) = [i for i, names in enumerate(LEVELS) if name in names]
    return found


def imported(nodes):
    """Full names that import statements among `nodes` bring in."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_at_once(path):
    """The same, of what is imported with the module: not inside functions."""
    nodes, found = [ast.parse(path.read_text(encoding="utf-8"))], []
    while nodes:
        node = nodes.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node)
            nodes.extend(ast.iter_child_nodes(node))
    return set(imported(found))


@every_file
def test_imports_point_one_way(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name in imported(ast.walk(tree)):
        package, *rest = name.split(".")
        if package == "keras_parti" and rest and rest[0] != "__version__":
            assert level(rest[0]) <= level(own(path)), f"{path} imports {name}"


@every_file
def test_tensorflow_is_imported_only_where_it_belongs(path):
    if own(path) in PURE:
        names = set(imported(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    elif own(path) in LAZY:
        names = imported_at_once(path)
    else:
        names = set()
    assert not {name.split(".")[0] for name in names} & TENSORFLOW, path


@every_file
def test_a_file_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def test_keras_is_spelled_one_way():
    for path in FILES:
        names = imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        assert not [n for n in names if n.startswith("tensorflow.keras")], path
        assert "tf.keras" not in path.read_text(encoding="utf-8"), path


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys; before = set(sys.modules); import keras_parti; "
        "print({'keras', 'numpy', 'tensorflow', 'jax'} & (set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"


def test_public_names_exist():
    for name in keras_parti.__all__:
        assert getattr(keras_parti, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Partii'"):
        keras_parti.Partii  # noqa: B018
