"""The examples in docstrings, and the Python of the README, are true.

They name what a reader has: trained parts in `runs/`, an exported model in
`saved_models/emoji` and a server of it at `localhost:8500`. Here an untrained chain of
the smallest sizes stands in for these, on a free port.
"""

import doctest
import importlib
import pkgutil
import re
import shutil
from pathlib import Path

import pytest
from guides import blocks

import keras_parti

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(keras_parti.__path__, "keras_parti.")
    if not m.name.endswith("__main__")  # would run the command
)


# They compile, export or serve, which takes 5 to 15 s of a core.
SLOW = {
    f"keras_parti.{name}"
    for name in (
        "mesh.step",
        "models.text_to_image",
        "serving.client",
        "serving.export",
        "serving.server",
    )
}


@pytest.fixture(scope="module")
def reader(small_chain, tmp_path_factory):
    """The folder in which a reader works."""
    folder = tmp_path_factory.mktemp("reader")
    small_chain.save(folder / "runs" / "chain")
    small_chain.tokenizer.save_dir(folder / "runs" / "tokenizer" / "model")
    small_chain.parti.save_dir(folder / "runs" / "parti" / "model")
    (folder / "runs" / "vocab").mkdir()
    small_chain.vocabulary.save(folder / "runs" / "vocab" / "vocabulary.model")
    return folder


@pytest.fixture(scope="module")
def address(reader, exported):
    """That of a server of an exported model, which is in the folder from then on."""
    from keras_parti.serving import Server

    shutil.copytree(exported.parent, reader / "saved_models" / "emoji")
    with Server(reader / "saved_models" / "emoji", port=0) as server:
        yield server.address


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in ("keras_parti", *MODULES)
    ],
)
def test_docstring_examples(name, tmp_path, monkeypatch, request):
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        sources = "".join(example.source for example in test.examples)
        served = re.search(r"\bsaved_models/|\blocalhost:", sources)
        at_work = served or "runs/" in sources
        monkeypatch.chdir(request.getfixturevalue("reader") if at_work else tmp_path)
        if served:
            server = request.getfixturevalue("address")
            for example in test.examples:
                example.source = example.source.replace("localhost:8500", server)
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_no_example_is_skipped():
    for path in Path(keras_parti.__file__).parent.rglob("*.py"):
        assert "doctest: +" not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_the_python_of_the_readme_runs(reader, monkeypatch):
    """What the first block exports is what the last one asks for pictures."""
    from keras_parti.serving import Server

    monkeypatch.chdir(reader)
    *blocks_before, last = (
        code for language, code in blocks(ROOT / "README.md") if language == "python"
    )
    names = {}
    for code in blocks_before:
        exec(compile(code, "README.md", "exec"), names)
    with Server("saved_models/mine", name="emoji", port=0) as server:
        # The smallest chain cannot enlarge.
        code = last.replace("localhost:8500", server.address).replace(", size=128", "")
        exec(compile(code, "README.md", "exec"), names)
    assert names["drawn"]["images"].shape[:2] == (1, 4)
