"""Parti: causality, masks, and that dropped conditions are the empty prompt."""

import keras
import numpy as np
import pytest
from far_weights import scatter
from keras import ops

from keras_parti.layers import ConditionDropout, ImageMixing
from keras_parti.losses import TokenCrossEntropy
from keras_parti.models import Parti
from keras_parti.models.parti import PartiConfig, causal_mask

TEXT = np.array(
    [
        [2, 71, 5, 9, 3, 0, 0, 0, 0, 0, 0],
        [2, 8, 3, 0, 0, 0, 0, 0, 0, 0, 0],
        [2, 17, 4, 19, 6, 23, 7, 250, 299, 31, 3],
    ],
    "int32",
)
IMAGE = (np.arange(27).reshape(3, 9) * 5 % 23).astype("int32")


@pytest.fixture
def parti():
    """A tiny model of weights large enough that every path shows."""
    return scatter(Parti.from_preset("parti_tiny"))


def logits(model, text_ids=TEXT, image_ids=IMAGE):
    outputs = model({"text_ids": text_ids, "image_ids": image_ids}, training=False)
    return ops.convert_to_numpy(outputs)


def test_the_causal_mask_is_a_triangle():
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(ops.convert_to_numpy(causal_mask(4)), expected)


def windowed(**fields):
    """Two decoder layers, on rasters of 5 by 5 ids, with a window of 3."""
    fields = {"num_tokens": 25, "attention_kernel": 3, **fields}
    return scatter(Parti.from_preset("parti_tiny", **fields))


def changes(model, position):
    """Which logits an id changes, bool `(25,)`."""
    ids = np.tile(np.arange(25, dtype="int32") * 7 % 23, (2, 1))
    ids[1, position] += 1
    rows = logits(model, np.tile(TEXT[:1], (2, 1)), ids)
    return np.abs(rows[0] - rows[1]).max(axis=-1) > 1e-5


def test_an_id_is_seen_through_the_windows_of_two_layers():
    # The id at position 6 is read at 7. One layer shows it where row offsets are in
    # {0, 1, 4, 5, 6}; a second layer shows it wherever two of them add up.
    offsets = [0, 1, 4, 5, 6]
    once = {7 + a for a in offsets}
    twice = {7 + a + b for a in offsets for b in offsets}
    model = windowed(window_layers=(0, 1))
    assert set(np.flatnonzero(changes(model, 6))) == {p for p in twice if p < 25}
    first = windowed(decoder_layers=1)
    assert set(np.flatnonzero(changes(first, 6))) == once


def test_layers_without_a_window_see_every_id_before():
    model = windowed(window_layers=(1,))
    assert set(np.flatnonzero(changes(model, 6))) == set(range(7, 25))
    kernels = [block.kernel_size for block in model.decoder]
    assert kernels == [None, 3]


def test_a_window_changes_no_variable():
    dense = Parti.from_preset("parti_tiny")
    sparse = Parti.from_preset("parti_tiny", attention_kernel=3)
    assert [w.path for w in sparse.weights] == [w.path for w in dense.weights]


def test_tied_logits_are_products_with_the_image_embedding():
    model = windowed(tie_embeddings=True)
    x = np.sin(np.arange(2 * 25 * 16)).reshape(2, 25, 16).astype("float32")
    table = ops.convert_to_numpy(model.image_embedding.embeddings)
    bias = ops.convert_to_numpy(model.logits.bias)
    expected = ops.convert_to_numpy(model.decoder_norm(x)) @ table[:23].T + bias
    np.testing.assert_allclose(model.predict_logits(x), expected, atol=1e-4)
    # One table in place of two, but for the row that begins an image.
    assert windowed().count_params() - model.count_params() == 23 * 16


def test_factorised_positions_are_a_row_and_a_column():
    model = windowed(image_positions="factorised")
    assert windowed().count_params() - model.count_params() == (25 - 5 - 5) * 16
    rows, columns = (ops.convert_to_numpy(w) for w in model.image_positions.weights)
    x = np.zeros((1, 25, 16), "float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(model.image_positions(x))[0, 13],
        rows[2] + columns[3],
        atol=1e-6,
    )


def test_a_windowed_model_is_saved_with_its_fields(tmp_path):
    model = windowed(window_layers=(1,), tie_embeddings=True)
    model.save_dir(tmp_path)
    again = Parti.load_dir(tmp_path)
    assert again.config == model.config
    ids = np.tile(np.arange(25, dtype="int32") % 23, (3, 1))
    np.testing.assert_array_equal(
        logits(again, image_ids=ids), logits(model, image_ids=ids)
    )


@pytest.mark.parametrize("position", [0, 4, 8])
def test_an_id_changes_only_what_comes_after_it(parti, position):
    changed = IMAGE.copy()
    changed[:, position] = (changed[:, position] + 11) % 23
    before, after = logits(parti), logits(parti, image_ids=changed)
    kept = slice(None, position + 1)
    np.testing.assert_allclose(before[:, kept], after[:, kept], atol=1e-5)
    if position < 8:
        assert np.abs(before[:, position + 1 :] - after[:, position + 1 :]).max() > 0.1


def test_the_first_id_is_predicted_from_the_text_alone(parti):
    rows = logits(parti)[:, 0]
    assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_padding_is_not_seen(parti):
    """What the embedding of padding holds does not matter."""
    before = logits(parti)
    table = ops.convert_to_numpy(parti.text_embedding.embeddings).copy()
    table[0] = 3 * np.sin(np.arange(16))  # a constant would be normalised away
    parti.text_embedding.embeddings.assign(table)
    np.testing.assert_allclose(logits(parti), before, atol=1e-5)


def test_the_order_of_the_text_matters(parti):
    swapped = TEXT.copy()
    swapped[:, [1, 2]] = swapped[:, [2, 1]]
    assert np.abs(logits(parti)[2] - logits(parti, text_ids=swapped)[2]).max() > 0.05


def test_a_dropped_condition_is_the_empty_prompt():
    layer = ConditionDropout(1.0, seed=3)
    dropped = ops.convert_to_numpy(layer(TEXT, training=True))
    np.testing.assert_array_equal(dropped, [[2, 3] + [0] * 9] * 3)
    np.testing.assert_array_equal(layer(TEXT, training=False), TEXT)


def test_conditions_are_dropped_at_the_stated_rate():
    rows = np.repeat(TEXT[:1], 4001, axis=0)
    layer = ConditionDropout(0.3, seed=3)
    dropped = ops.convert_to_numpy(layer(rows, training=True))[:, 2] == 0
    # Five standard deviations of a share of 4001 draws.
    assert abs(dropped.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 4001)


def test_ids_of_the_row_before_are_mixed_in_at_shares_of_their_own():
    rows = np.arange(3001, dtype="int32")[:, None] + np.zeros((1, 99), "int32")
    layer = ImageMixing(0.4, seed=3)
    mixed = ops.convert_to_numpy(layer(rows, training=True))
    other = mixed == np.roll(rows, 1, axis=0)
    assert np.all(other | (mixed == rows))
    shares = other.mean(axis=1)
    touched = shares > 0
    # One mixed row in a hundred has a share too small to touch one of 99 ids.
    assert abs(touched.mean() - 0.4 * 0.99) < 5 * np.sqrt(0.24 / 3001)
    quartiles = np.quantile(shares[touched], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.08)
    np.testing.assert_array_equal(layer(rows, training=False), rows)


def changed_in_training(model):
    """Logits of a training step, of the ids that its first layers change."""
    inputs = {"text_ids": TEXT, "image_ids": IMAGE}
    return ops.convert_to_numpy(model(inputs, training=True))


def test_a_training_step_drops_texts():
    model = scatter(Parti.from_preset("parti_tiny", dropout_rate=0.0))
    model.condition_dropout.rate = 1.0
    empty = np.int32([[2, 3] + [0] * 9] * 3)
    expected = logits(model, text_ids=empty)
    np.testing.assert_allclose(changed_in_training(model), expected, atol=1e-5)
    assert np.abs(logits(model) - expected).max() > 0.1


def test_a_training_step_mixes_the_ids_that_are_read(monkeypatch):
    fields = {"dropout_rate": 0.0, "condition_dropout_rate": 0.0}
    model = scatter(Parti.from_preset("parti_tiny", **fields, image_mixing_rate=0.5))
    # All ids of the row before, in place of a random share of them.
    monkeypatch.setattr(
        model.image_mixing, "_changed", lambda ids: ops.roll(ids, 1, axis=0)
    )
    expected = logits(model, image_ids=np.roll(IMAGE, 1, axis=0))
    np.testing.assert_allclose(changed_in_training(model), expected, atol=1e-5)
    assert np.abs(logits(model) - expected).max() > 0.1


def test_every_block_has_the_three_dropout_rates():
    rates = {"activation_dropout_rate": 0.2, "attention_dropout_rate": 0.3}
    model = Parti.from_preset("parti_tiny", dropout_rate=0.1, **rates)
    assert model.dropout.rate == 0.1
    for block in (*model.encoder, *model.decoder):
        assert block.dropout.rate == 0.1
        assert block.feed_forward.dropout.rate == 0.2
        assert block.attention.dropout.rate == 0.3
    for block in model.decoder:
        assert block.cross_attention.dropout.rate == 0.3


def test_the_window_is_dall_es_unless_it_is_said():
    config = PartiConfig()
    assert {config.kernel_of(i) for i in range(config.decoder_layers)} == {11}
    assert config.attention_wraparound


@pytest.mark.parametrize("num_tokens", [4, 9])
def test_in_a_tiny_picture_the_window_is_every_id_before(num_tokens):
    dense, windowed = (
        scatter(
            Parti.from_preset(
                "parti_tiny", num_tokens=num_tokens, attention_kernel=kernel
            )
        )
        for kernel in (None, 11)
    )
    ids = IMAGE[:, :num_tokens]
    np.testing.assert_allclose(
        logits(windowed, image_ids=ids), logits(dense, image_ids=ids), atol=1e-5
    )


def test_blocks_of_a_new_model_are_identities():
    model = Parti.from_preset("parti_tiny")
    x = np.sin(np.arange(2 * 9 * 16)).reshape(2, 9, 16).astype("float32")
    np.testing.assert_array_equal(model.decoder[0](x, x), x)


def test_one_batch_can_be_learned():
    model = Parti.from_preset(
        "parti_tiny", dropout_rate=0.0, condition_dropout_rate=0.0
    )
    model.compile(keras.optimizers.Adam(2e-2), loss=TokenCrossEntropy())
    x = {"text_ids": TEXT, "image_ids": IMAGE}
    model.fit(x, IMAGE, epochs=80, verbose=0)
    assert (logits(model).argmax(-1) == IMAGE).mean() > 0.9


def test_a_text_of_another_length_is_refused(parti):
    with pytest.raises(ValueError, match="`text_ids` must have 11 columns"):
        logits(parti, text_ids=TEXT[:, :10])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "`heads` must divide `dim`, 16"),
        ({"dropout_rate": 1.0}, r"`dropout_rate` must be in \[0, 1\)"),
        ({"text_length": 1}, "`text_length` must be at least 2"),
        ({"num_tokens": 0}, "`num_tokens` must be a positive integer"),
        ({"attention_kernel": 4}, "`attention_kernel` must be an odd positive"),
        (
            {"attention_kernel": 3, "num_tokens": 12},
            r"`num_tokens` must be a square.*`attention_kernel=None`.*=12",
        ),
        (
            {"image_positions": "factorised", "num_tokens": 12},
            "`num_tokens` must be a square",
        ),
        ({"image_positions": "sines"}, "must be 'learned' or 'factorised'"),
        ({"window_layers": [0]}, "`window_layers` names layers with a window"),
        (
            {"attention_kernel": 3, "window_layers": [0, 2]},
            r"`window_layers` must be in \[0, 2\)",
        ),
        ({"attention_dropout_rate": 1.5}, r"`attention_dropout_rate` must be in \["),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Parti.preset_config("parti_tiny", **fields)
