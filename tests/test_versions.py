"""Versions come and go without a failed request, and say how they are."""

import shutil
import threading

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus as Status
from tensorflow_serving.config import model_server_config_pb2

from keras_parti.serving import versions
from keras_parti.serving.models import Models, one_model, read_config


class Fake:
    """Stands for a loaded version; a file named `broken` in its folder breaks it."""

    def __init__(self, folder, warm_up):
        self.version = int(folder.name)
        self.folder = folder
        self.closed = False
        if (folder / "broken").exists():
            raise ValueError((folder / "broken").read_text())

    def close(self):
        self.closed = True


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "Servable", Fake)
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)
    return tmp_path


def configs(root, text):
    parsed = model_server_config_pb2.ModelConfigList()
    text_format.Parse(text.replace("ROOT", str(root)), parsed)
    return parsed


def spec(name="a", version=None, label=None):
    found = model_pb2.ModelSpec(name=name)
    if version is not None:
        found.version.value = version
    if label is not None:
        found.version_label = label
    return found


def served(models, **kwargs):
    with models.lease(spec(**kwargs)) as servable:
        return servable.version


def states(models, name="a"):
    entries = models.status(spec(name)).model_version_status
    return {entry.version: Status.State.Name(entry.state) for entry in entries}


@pytest.fixture
def models(root):
    models = Models()
    models.configure(one_model("a", root / "a"))
    return models


def test_a_new_version_takes_over_and_the_old_one_ends(models, root):
    assert (served(models), states(models)) == (1, {1: "AVAILABLE"})
    (root / "a" / "10").mkdir()
    (root / "a" / "9").mkdir()
    (root / "a" / "11.tmp").mkdir()
    models.sync()
    assert (served(models), states(models)) == (10, {10: "AVAILABLE", 1: "END"})
    with pytest.raises(tf.errors.NotFoundError, match=r"Specific\(a, 1\)"):
        served(models, version=1)


def test_the_old_version_serves_while_the_new_one_loads(models, root, monkeypatch):
    loading, go_on = threading.Event(), threading.Event()

    class Slow(Fake):
        def __init__(self, folder, warm_up):
            loading.set()
            assert go_on.wait(30)
            super().__init__(folder, warm_up)

    monkeypatch.setattr(versions, "Servable", Slow)
    (root / "a" / "2").mkdir()
    poll = threading.Thread(target=models.sync)
    poll.start()
    assert loading.wait(30)
    assert states(models) == {2: "LOADING", 1: "AVAILABLE"}
    assert served(models) == 1
    go_on.set()
    poll.join()
    assert served(models) == 2


def test_the_old_version_stays_until_its_requests_are_done(models, root):
    (root / "a" / "2").mkdir()
    with models.lease(spec()) as old:
        poll = threading.Thread(target=models.sync)
        poll.start()
        while states(models) != {2: "AVAILABLE", 1: "UNLOADING"}:
            pass
        assert not old.closed
        assert served(models) == 2
    poll.join()
    assert old.closed
    assert states(models) == {2: "AVAILABLE", 1: "END"}


def test_a_broken_version_says_why_and_is_tried_again_when_it_changes(
    models, root, caplog
):
    (root / "a" / "2").mkdir()
    (root / "a" / "2" / "broken").write_text("it has no legs")
    for _ in range(3):
        models.sync()
    assert served(models) == 1
    new, old = models.status(spec()).model_version_status
    assert (new.version, new.state, old.state) == (2, Status.END, Status.AVAILABLE)
    assert new.status.error_message == "it has no legs"
    assert new.status.error_code != 0
    assert caplog.text.count("version 2 is not whole: it has no legs") == 1
    (root / "a" / "2" / "broken").unlink()
    models.sync()
    assert (served(models), states(models)) == (2, {2: "AVAILABLE", 1: "END"})


def test_a_swap_is_said_step_by_step(models, root, caplog):
    caplog.set_level("INFO", "keras_parti.serving.versions")
    (root / "a" / "2").mkdir()
    models.sync()
    assert caplog.messages == [
        "Version 2 of a found: loading and warming up ...",
        "Serving a, version 2.",
        "Version 1 of a has ended.",
    ]


def test_a_version_that_fails_again_for_the_same_reason_is_said_once(
    models, root, caplog
):
    caplog.set_level("INFO", "keras_parti.serving.versions")
    broken = root / "a" / "2" / "broken"
    broken.parent.mkdir()
    for reason in ("torn", "torn", "split"):
        broken.unlink(missing_ok=True)
        broken.write_text(reason)
        models.sync()
    assert caplog.messages == [
        "Version 2 of a found: loading and warming up ...",
        f"{root / 'a'}: version 2 is not whole: torn. Version 1 goes on.",
        f"{root / 'a'}: version 2 is not whole: split. Version 1 goes on.",
    ]


def test_at_the_start_an_older_version_is_better_than_none(root):
    for number in ("2", "3"):
        (root / "a" / number).mkdir()
    (root / "a" / "3" / "broken").write_text("torn")
    models = Models()
    models.configure(one_model("a", root / "a"))
    assert states(models) == {3: "END", 2: "AVAILABLE"}


def test_a_folder_that_goes_away_leaves_what_is_served(models, root, caplog):
    shutil.rmtree(root / "a")
    for _ in range(3):
        models.sync()
    assert served(models) == 1
    assert caplog.text.count("No model folder") == 1


def test_a_version_that_loads_when_all_ends_is_closed(models, root, monkeypatch):
    loading, go_on, made = threading.Event(), threading.Event(), []

    class Slow(Fake):
        def __init__(self, folder, warm_up):
            loading.set()
            assert go_on.wait(30)
            super().__init__(folder, warm_up)
            made.append(self)

    monkeypatch.setattr(versions, "Servable", Slow)
    (root / "a" / "2").mkdir()
    (model,) = models
    with models.lease(spec()) as first:
        poll = threading.Thread(target=model.sync)
        poll.start()
        assert loading.wait(30)
        models.abandon()  # waits for nobody
        assert first.closed
    go_on.set()
    poll.join()
    assert [servable.closed for servable in made] == [True]
    model.sync()
    assert model.available == []


POLICIES = """
config {
  name: "a" base_path: "ROOT/a"
  model_version_policy { %s }
  version_labels { key: "stable" value: 2 }
}
"""


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("latest { num_versions: 2 }", [2, 3]),
        ("all {}", [1, 2, 3]),
        ("specific { versions: 2 versions: 1 versions: 9 }", [1, 2]),
    ],
)
def test_policies_and_labels_choose_versions(root, policy, wanted):
    for number in ("2", "3"):
        (root / "a" / number).mkdir()
    models = Models()
    models.configure(configs(root, POLICIES % policy))
    assert sorted(states(models)) == wanted
    assert served(models) == wanted[-1]
    assert [served(models, version=v) for v in wanted] == wanted
    assert served(models, label="stable") == 2
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        served(models, label="canary")
    assert error.value.message == "Unrecognized servable version label: canary"


TWO = """
config { name: "a" base_path: "ROOT/a" }
config { name: "b" base_path: "ROOT/b" model_platform: "tensorflow" }
"""


def reload_with(models, root, text):
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.CopyFrom(configs(root, text))
    models.reload(config)


def test_reload_adds_and_removes_models(models, root):
    with models.lease(spec()) as first:
        reload_with(models, root, TWO)
    assert (served(models), served(models, name="b")) == (1, 1)
    with models.lease(spec()) as again:
        assert again is first  # what stays is not loaded anew
    reload_with(models, root, 'config { name: "b" base_path: "ROOT/b" }')
    assert first.closed
    with pytest.raises(tf.errors.NotFoundError, match="any versions of model a"):
        states(models)
    with pytest.raises(tf.errors.NotFoundError, match=r"Latest\(a\)"):
        served(models)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            'config { name: "a" base_path: "ROOT/b" } '
            'config { name: "c" base_path: "ROOT/c" }',
            tf.errors.NotFoundError,
            "No model folder .*/c",
        ),
        (
            'config { name: "b" base_path: "ROOT/b" '
            'version_labels { key: "stable" value: 7 } }',
            tf.errors.FailedPreconditionError,
            "Request to assign label to version 7 of model b, which is not currently",
        ),
        ("", tf.errors.FailedPreconditionError, "must name at least one model"),
        (
            'config { name: "a" base_path: "x" } config { name: "a" base_path: "y" }',
            tf.errors.FailedPreconditionError,
            "Received twice: a",
        ),
        (
            'config { name: "a" }',
            tf.errors.FailedPreconditionError,
            "Each model must have a name and a base_path",
        ),
        (
            'config { name: "a" base_path: "x" model_platform: "caffe" }',
            tf.errors.FailedPreconditionError,
            "model_platform must be tensorflow. Received: caffe",
        ),
    ],
)
def test_a_reload_that_fails_changes_nothing(models, root, text, kind, words):
    with pytest.raises(kind, match=words):
        reload_with(models, root, text)
    assert served(models) == 1
    with models.lease(spec()) as servable:
        assert not servable.closed
        assert servable.folder == root / "a" / "1"
    assert [model.name for model in models] == ["a"]


def test_another_folder_for_a_name_is_loaded_before_it_takes_over(models, root):
    reload_with(models, root, 'config { name: "a" base_path: "ROOT/b" }')
    with models.lease(spec()) as servable:
        assert servable.folder == root / "b" / "1"


def test_a_config_file_is_read_or_its_mistake_named(root):
    path = root / "models.config"
    path.write_text(f"model_config_list {{ {TWO} }}")
    assert [config.name for config in read_config(path).config] == ["a", "b"]
    path.write_text("model_config_list { confog {} }")
    with pytest.raises(ValueError, match=r"no ModelServerConfig: 1:21 .*confog"):
        read_config(path)
    path.write_text("")
    with pytest.raises(ValueError, match="must name at least one model"):
        read_config(path)
