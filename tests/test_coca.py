"""CoCa: the poolers, what each half of the decoder sees, scores and captions."""

import dataclasses

import numpy as np
import pytest

from keras_parti import layers, models, presets
from keras_parti.layers.embeddings import BOS, EOS, PAD
from keras_parti.models import CoCa

LENGTH = 11


def texts(*pieces):
    rows = np.full((len(pieces), LENGTH), PAD, "int32")
    for row, count in enumerate(pieces):
        rows[row, : count + 2] = [BOS, *range(4 + row, 4 + row + count), EOS]
    return rows


def pictures(count, seed=0):
    return np.random.default_rng(seed).random((count, 12, 12, 3), "float32")


@pytest.fixture(scope="module")
def coca():
    model = CoCa.from_preset("coca_tiny")
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def test_a_pooler_is_attention_of_its_queries():
    pooler = layers.AttentionalPooler(num_queries=3, num_heads=1)
    inputs = np.sin(np.arange(2 * 5 * 7, dtype="float32")).reshape(2, 5, 7)
    pooler.build(inputs.shape)

    def dense(name, x):
        layer = getattr(pooler, name)
        return x @ np.array(layer.kernel) + np.array(layer.bias)

    logits = dense("query", np.array(pooler.queries)) @ np.swapaxes(
        dense("key", inputs), 1, 2
    )
    weights = np.exp(logits / np.sqrt(7))
    weights /= weights.sum(-1, keepdims=True)
    expected = dense("output_projection", weights @ dense("value", inputs))
    assert np.abs(expected).max() > 0.01  # it does not begin at nothing
    np.testing.assert_allclose(pooler(inputs), expected, atol=1e-5)


def test_a_pooler_without_queries_is_refused():
    with pytest.raises(ValueError, match="`num_queries` must be positive"):
        layers.AttentionalPooler(num_queries=0, num_heads=1)


def test_base_is_as_printed_with_what_the_table_leaves_out():
    """Table 1: 86M and 297M. Positions, poolers and biases are not in it."""
    c, d, f = models.CoCaConfig(), 768, 3072
    block = 4 * (d * d + d) + 2 * d * f + f + d + 2 * 2 * d
    cross = 4 * (d * d + d) + 2 * d
    image = 12 * block + (18 * 18 * 3 + 1) * d + 256 * d + 2 * d
    vocabulary = (64_000 + 1) * d + 64_000 * (d + 1)
    text = 12 * block + 12 * (block + cross) + vocabulary + 65 * d + 2 * 2 * d
    poolers = 2 * 4 * (d * d + d) + (256 + 1) * d + 2 * 2 * d
    assert round(image / 1e6) == 86
    assert text == pytest.approx(297e6, rel=0.003)
    total = image + text + poolers + 1
    assert (c.dim, c.text_mlp_dim) == (d, f)
    assert presets.COCA["coca_base"].params == total


def test_a_score_is_the_cosine_of_the_vectors_that_the_loss_compares(coca):
    images, ids = pictures(3), texts(2, 5, 9)
    pairs = np.array(coca({"images": images, "text_ids": ids})["embeddings"])
    unit = pairs / np.linalg.norm(pairs, axis=-1, keepdims=True)
    expected = (unit[:, 0] * unit[:, 1]).sum(-1)
    np.testing.assert_allclose(coca.score(images, ids), expected, atol=1e-5)
    np.testing.assert_allclose(coca.image_embedding(images), unit[:, 1], atol=1e-5)
    np.testing.assert_allclose(coca.text_embedding(ids), unit[:, 0], atol=1e-5)
    scale = np.exp(float(coca.log_scale))
    np.testing.assert_allclose(np.linalg.norm(pairs, axis=-1), [[scale, 1]] * 3, 1e-5)


def test_a_token_is_predicted_from_those_before_it_and_the_picture(coca):
    images, ids = pictures(1), texts(9)
    before = np.array(coca({"images": images, "text_ids": ids})["tokens"])
    other = ids.copy()
    other[0, 6] = 200
    after = np.array(coca({"images": images, "text_ids": other})["tokens"])
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-5)
    assert np.abs(after[:, 6:] - before[:, 6:]).max(axis=-1).min() > 1e-3
    other = np.array(coca({"images": 1 - images, "text_ids": ids})["tokens"])
    assert np.abs(other - before).max(axis=-1).min() > 1e-3


def test_the_text_vector_sees_the_whole_text_and_no_padding(coca):
    ids = texts(4)
    before = np.array(coca.text_embedding(ids))
    for place in range(6):
        other = ids.copy()
        other[0, place] = 200
        assert np.abs(np.array(coca.text_embedding(other)) - before).max() > 1e-3
    table = coca.text_embedding_table.embeddings
    kept = np.array(table)
    table.assign(np.concatenate([kept[:1] + 3, kept[1:]]))
    np.testing.assert_allclose(coca.text_embedding(ids), before, atol=1e-5)
    table.assign(kept)


def test_a_caption_is_the_likeliest_token_each_time(coca):
    images = pictures(3, seed=2)
    written = np.array(coca.caption(images))
    logits = np.array(coca({"images": images, "text_ids": written})["tokens"])
    logits[..., [PAD, BOS]] = -np.inf
    for row, values in zip(written, logits, strict=True):
        end = list(row).index(EOS)
        assert row[0] == BOS
        assert (row[end + 1 :] == PAD).all()
        chosen = values.argmax(-1)[:end]
        if end == LENGTH - 1:  # closed there, whatever is likely
            chosen[-1] = EOS
        np.testing.assert_array_equal(row[1 : end + 1], chosen)


def test_a_caption_ends_where_the_model_ends_it(coca):
    kept = np.array(coca.tokens.bias)
    coca.tokens.bias.assign(1e3 * (np.arange(len(kept)) == EOS))
    written = np.array(coca.caption(pictures(2)))
    coca.tokens.bias.assign(kept)
    np.testing.assert_array_equal(written, texts(0, 0))


def test_a_reranker_keeps_only_what_scoring_needs(coca, tmp_path):
    reranker = coca.reranker()
    images, ids = pictures(3), texts(2, 5, 9)
    np.testing.assert_array_equal(reranker.score(images, ids), coca.score(images, ids))
    left_out = sum(
        layer.count_params()
        for layer in (*coca.multimodal, coca.multimodal_norm, coca.tokens)
    )
    assert reranker.count_params() == coca.count_params() - left_out
    assert set(reranker({"images": images, "text_ids": ids})) == {"embeddings"}
    reranker.save_dir(tmp_path)
    again = CoCa.load_dir(tmp_path)
    assert again.config == dataclasses.replace(coca.config, multimodal_layers=None)
    np.testing.assert_array_equal(again.score(images, ids), coca.score(images, ids))
    with pytest.raises(ValueError, match="reranker writes no captions"):
        again.caption(images)


def test_wrong_sizes_and_counts_are_said(coca):
    images, ids = pictures(2), texts(2, 3)
    with pytest.raises(ValueError, match=r"equally many. Received: 2 and 1"):
        coca.score(images, ids[:1])
    with pytest.raises(ValueError, match=r"must be \(batch, 12, 12, 3\).*8, 12, 3"):
        coca.image_embedding(images[:, :8])
    with pytest.raises(ValueError, match="must have 11 columns"):
        coca.text_embedding(ids[:, :7])
    for field, value, message in (
        ("multimodal_layers", 0, "or None for a reranker"),
        ("patch_size", 5, "must be a multiple"),
        ("dropout_rate", 1.0, r"must be in \[0, 1\)"),
        ("heads", 3, "must divide"),
    ):
        with pytest.raises(ValueError, match=message):
            CoCa.from_preset("coca_tiny", **{field: value})
