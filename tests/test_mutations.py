"""The deliberate bugs of `make mutations` can be put in, and their tests are there."""

import ast
from pathlib import Path

import mutations
import pytest
from mutation_table import Mutation
from mutations import MUTATIONS

TESTS = Path(__file__).parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file} {m.test}")
def test_a_bug_can_be_put_in_and_changes_one_line(mutation):
    before = (mutations.PACKAGE / mutation.file).read_text(encoding="utf-8")
    before, after = (x.splitlines() for x in (before, mutations.mutated(mutation)))
    assert len(before) == len(after)
    assert sum(x != y for x, y in zip(before, after, strict=True)) == 1
    ast.parse("\n".join(after))


@pytest.mark.parametrize("name", sorted({m.test for m in MUTATIONS}))
def test_the_test_that_catches_a_bug_is_there(name):
    file, test = name.split("[")[0].split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert test in {x.name for x in tree.body if isinstance(x, ast.FunctionDef)}


def test_bugs_are_many_and_everywhere():
    assert len(MUTATIONS) >= 30
    folders = {mutation.file.partition("/")[0] for mutation in MUTATIONS}
    wanted = {"layers", "models", "training", "serving", "evaluation", "mesh", "data"}
    assert wanted <= folders


@pytest.mark.parametrize("old", ["no such line", "import"])
def test_a_bug_without_its_one_place_is_refused(old):
    mutation = Mutation("losses.py", old, "", "test_losses.py::test_none")
    with pytest.raises(ValueError, match="must hold the old text once"):
        mutations.mutated(mutation)


@pytest.mark.slow
def test_only_a_test_that_fails_has_caught_a_bug():
    caught = Mutation(
        "layers/window.py",
        "return radius * (width + 1) + 1",
        "return radius * width + 1",
        "test_window.py::test_a_kernel_without_a_centre_is_refused",
    )
    assert mutations.try_one(caught).outcome == "SURVIVED"
    syntax = caught._replace(new="return radius * (")
    assert mutations.try_one(syntax).outcome.startswith("NOT RUN")
    noticed = caught._replace(test="test_window.py::test_a_kernel_of_3_with_wraparound")
    assert mutations.try_one(noticed).outcome == "caught"
