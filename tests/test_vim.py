"""VIM: causal, conditioned by a class, with features of its blocks."""

import math

import keras
import numpy as np
import pytest
from far_weights import scatter
from keras import ops

from keras_parti import presets
from keras_parti.layers import GridPositionEmbedding
from keras_parti.losses import TokenCrossEntropy
from keras_parti.models import VIM

IDS = (np.arange(27).reshape(3, 9) * 5 % 23).astype("int32")
LABELS = np.array([1, 4, 5], "int32")  # the last is no class


@pytest.fixture(scope="module")
def vim():
    return scatter(VIM.from_preset("vim_tiny"))


def logits(model, ids=IDS, labels=LABELS):
    outputs = model({"image_ids": ids, "labels": labels}, training=False)
    return ops.convert_to_numpy(outputs)


def features(model, *args):
    return ops.convert_to_numpy(model.features(IDS, *args))


@pytest.mark.parametrize("position", [0, 4, 8])
def test_an_id_changes_only_what_comes_after_it(vim, position):
    changed = IDS.copy()
    changed[:, position] = (changed[:, position] + 11) % 23
    before, after = logits(vim), logits(vim, changed)
    kept = slice(None, position + 1)
    np.testing.assert_allclose(before[:, kept], after[:, kept], atol=1e-5)
    if position < 8:
        assert np.abs(before[:, position + 1 :] - after[:, position + 1 :]).max() > 0.1


def test_the_first_id_is_predicted_from_the_class_alone(vim):
    same = logits(vim, IDS * 0 + 7, np.array([2, 2, 3], "int32"))[:, 0]
    np.testing.assert_allclose(same[0], same[1], atol=1e-5)
    assert np.abs(same[1] - same[2]).max() > 0.1


def test_an_unconditional_model_takes_no_labels():
    model = scatter(VIM.from_preset("vim_tiny", num_classes=None))
    outputs = ops.convert_to_numpy(model({"image_ids": IDS}))
    np.testing.assert_array_equal(outputs, logits(model))


def test_one_batch_can_be_learned():
    model = VIM.from_preset("vim_tiny", dropout_rate=0.0)
    model.compile(keras.optimizers.Adam(2e-2), loss=TokenCrossEntropy())
    x = {"image_ids": IDS, "labels": LABELS}
    model.fit(x, IDS, epochs=80, verbose=0)
    assert (logits(model).argmax(-1) == IDS).mean() > 0.9


def test_classes_are_hidden_at_the_stated_rate(vim):
    model = VIM.from_preset("vim_tiny", dropout_rate=0.0, class_dropout_rate=0.3)
    model.set_weights(vim.get_weights())
    rows = np.repeat(IDS[:1], 1009, axis=0)
    inputs = {"image_ids": rows, "labels": np.full(1009, 2, "int32")}
    outputs = ops.convert_to_numpy(model(inputs, training=True))
    shown, hidden = logits(vim, rows[:2], np.array([2, 5], "int32"))
    to_shown = np.abs(outputs - shown).max((1, 2)) < 1e-3
    to_hidden = np.abs(outputs - hidden).max((1, 2)) < 1e-3
    assert (to_shown ^ to_hidden).all()
    # Five standard deviations of a share of 1009 draws.
    assert abs(to_hidden.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 1009)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_features_are_the_mean_output_of_a_block_over_the_ids(vim, block):
    x = ops.concatenate(
        [
            vim.class_embedding(np.full((3, 1), 5)),
            vim.positions(vim.image_embedding(IDS)),
        ],
        axis=1,
    )
    for layer in vim.blocks[: block + 1]:
        x = layer(x, attention_mask=np.tril(np.ones((10, 10), "bool")))
    expected = ops.convert_to_numpy(x)[:, 1:].mean(1)
    np.testing.assert_allclose(features(vim, block), expected, atol=1e-5)


def test_features_see_every_id_and_no_class(vim):
    before = features(vim)
    changed = IDS.copy()
    changed[:, -1] += 1
    assert np.abs(ops.convert_to_numpy(vim.features(changed)) - before).max() > 1e-3


def test_features_by_block_are_those_of_each_block(vim):
    for block, found in enumerate(vim.features_by_block(IDS)):
        np.testing.assert_allclose(found, features(vim, block), atol=1e-6)
    np.testing.assert_array_equal(features(vim), features(vim, 1))


def test_the_middle_block_is_that_of_table_7():
    for name, block in {"vim_base": 10, "vim_large": 15}.items():
        assert VIM.preset_config(name).middle_block == block


def test_a_place_has_the_vectors_of_its_row_and_column():
    layer = GridPositionEmbedding(3, 5)
    layer.build((None, 15, 7))
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(3, 7)), rng.normal(size=(5, 7))
    layer.set_weights([rows, columns])
    found = ops.convert_to_numpy(layer(np.zeros((2, 13, 7), "float32")))
    for i in range(13):
        expected = rows[i // 5] + columns[i % 5]
        np.testing.assert_allclose(found[1, i], expected, atol=1e-6)


@pytest.mark.parametrize("name", presets.VIM)
def test_a_vim_counts_as_its_closed_form(name):
    c = VIM.preset_config(name)
    dim, mlp = c.dim, c.mlp_dim
    attention = 4 * (dim * dim + dim)
    feed_forward = 2 * dim * mlp + mlp + dim
    total = (
        c.layers * (attention + feed_forward + 2 * 2 * dim)
        + 2 * dim  # final norm
        + (c.num_codes + (c.num_classes or 0) + 1) * dim
        + 2 * math.isqrt(c.num_tokens) * dim  # rows and columns
        + dim * c.num_codes
        + c.num_codes
    )
    assert presets.VIM[name].params == total


@pytest.mark.parametrize(("name", "printed"), [("vim_base", 650), ("vim_large", 1697)])
def test_the_counts_of_table_2_leave_out_one_matrix_of_each_block(name, printed):
    """And count 1024 positions, no biases and no norms; see `presets`."""
    c = VIM.preset_config(name)
    small = presets.VIM[name].params - c.layers * c.dim**2 + (1024 - 64) * c.dim
    assert small / 1e6 == pytest.approx(printed, rel=0.002)


def test_a_folder_holds_the_whole_model(vim, tmp_path):
    vim.save_dir(tmp_path)
    again = VIM.load_dir(tmp_path)
    assert again.config == vim.config
    np.testing.assert_array_equal(logits(again), logits(vim))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "`heads` must divide `dim`, 16"),
        ({"num_tokens": 12}, "`num_tokens` must be a square"),
        ({"num_classes": 0}, "`num_classes` must be a positive integer, or None"),
        ({"class_dropout_rate": 1.0}, r"`class_dropout_rate` must be in \[0, 1\)"),
        ({"layers": 0}, "`layers` must be a positive integer"),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VIM.preset_config("vim_tiny", **fields)


def test_wrong_inputs_are_named(vim):
    with pytest.raises(ValueError, match="`image_ids` must have 9 columns"):
        logits(vim, IDS[:, :8])
    with pytest.raises(ValueError, match="takes `labels` and `image_ids`"):
        vim({"image_ids": IDS})
    with pytest.raises(ValueError, match=r"`block` must be in \[0, 3\)"):
        vim.features(IDS, 3)
    with pytest.raises(ValueError, match=r"No preset 'vim_huge'.*vim_base"):
        VIM.from_preset("vim_huge")
