"""Meshes and layout rules: what they mean, and what cannot be."""

import subprocess
import sys

import pytest

from keras_parti.mesh import Layout
from keras_parti.mesh.layouts import AXES, PRESETS, TENSORS, axis_sizes
from keras_parti.mesh.variables import arrays_of, variables_of
from keras_parti.models import Parti
from keras_parti.presets import PARTI


def test_the_table_of_variables_counts_what_presets_say():
    for name, preset in PARTI.items():
        variables = variables_of(Parti.preset_config(name))
        counts = (len(v.members) * v.member_size for v in variables)
        assert sum(counts) == preset.params, name


def test_variables_of_all_members_have_other_names():
    variables = variables_of(Parti.preset_config("parti_tiny"))
    members = [member for v in variables for member in v.members]
    model = Parti.from_preset("parti_tiny")
    assert len(set(members)) == len(members) == len(model.trainable_variables)
    arrays = arrays_of(model.config)
    assert len({array.name for array in arrays}) == len(arrays)


def test_every_tensor_of_the_table_is_one_whose_axes_are_checked_together():
    for preset in ("parti_tiny", "parti_20b"):
        for variable in variables_of(Parti.preset_config(preset)):
            axes = set(variable.rows | variable.columns) & set(AXES)
            assert any(axes <= set(tensor) for tensor in TENSORS), variable


def test_a_slice_is_the_whole_divided_by_the_mesh():
    layout = Layout("data:3;model:5", "batch:data;mlp:model;vocab:model")
    assert layout.devices == 15
    assert layout.slice_shape(("batch", "length", "embed"), (6, 7, 11)) == (2, 7, 11)
    assert layout.slice_shape(("stack", "embed", "mlp"), (2, 11, 25)) == (2, 11, 5)
    # 23 ids are padded to 25.
    assert layout.slice_shape(("vocab", "embed"), (23, 11)) == (5, 11)


def test_named_layouts_are_their_rules():
    for name, rules in PRESETS.items():
        named = Layout("data:2;model:4", name)
        assert named.splits == Layout("data:2;model:4", rules).splits
    both = Layout("data:2;model:4", "two_d;length:model").splits
    assert both == {**named.splits, "length": "model"}
    assert Layout("", "").devices == 1
    assert Layout("data:2;model:4", "").splits == {}


@pytest.mark.parametrize(
    ("mesh", "rules", "words"),
    [
        ("data", "", r"`mesh` must be pairs such as 'data:8;model:4'. Received"),
        ("data:two", "", r"must be integers, such as .* Received: mesh='data:two'"),
        ("data:0", "", r"Axis `data` .* positive size. Received: mesh='data:0'"),
        ("data:2;data:4", "", r"each axis once. Received: `data` twice"),
        ("data:2", "batch:data;batch:data", r"Received: `batch` twice"),
        ("data:2", "three_d", r"or one of data_parallel, model_parallel, two_d"),
        ("data:2", "rows:data", r"split batch, length, .*vocab. Received: `rows`"),
        ("data:2", "two_d", r"`heads` cannot be split over `model`: the mesh 'data:2'"),
        ("", "data_parallel", r"has the axes none"),
        ("m:2", "heads:m;kv:m", r"`heads` and `kv` cannot both be split over `m`"),
        ("m:2", "batch:m;embed:m", r"`batch` and `embed` cannot both be split"),
    ],
)
def test_what_cannot_be_is_said(mesh, rules, words):
    with pytest.raises(ValueError, match=words):
        Layout(mesh, rules)


def test_an_axis_that_does_not_divide_names_its_size_and_what_would_fit():
    config = Parti.preset_config("parti_tiny")
    layout = Layout("data:2;model:5", "batch:data;mlp:model")
    with pytest.raises(
        ValueError,
        match=r"`mlp` of 24 does not split into 5 equal pieces over `model`. "
        r"Sizes of `model` that fit: 1, 2, 3, 4, 6, 8, 12, 24. Received: "
        r"mesh='data:2;model:5'",
    ):
        layout.check(axis_sizes(config, 8))
    with pytest.raises(ValueError, match=r"`batch` of 7 .* fit: 1, 7"):
        layout.check(axis_sizes(config, 7))


def test_layouts_need_no_tensorflow():
    script = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_parti.mesh import Layout; Layout('data:2', 'data_parallel')\n"
        "import keras_parti.mesh.variables; assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_devices_of_a_group_differ_along_axes_of_the_mesh():
    layout = Layout("data:3;pipe:2;model:5", "two_d")
    # Of device (d, p, m) the number is 10 d + 5 p + m.
    assert layout.between([0 + 5 + 4, 20 + 5 + 4]) == "data"
    assert layout.between([0 + 0 + 4, 0 + 5 + 4]) == "pipe"
    assert layout.between([20 + 0 + 0, 0 + 0 + 4]) == "data,model"
    assert layout.between([7]) == ""
