"""Explanations are true: probabilities are the score's, attention the network's."""

import numpy as np
import pytest
from PIL import Image

from keras_parti import cli
from keras_parti.evaluation.attention import (
    text_attention,
    token_probabilities,
    word_attention,
)
from keras_parti.evaluation.explain import HEAT, explain_page, heat_map, overlay
from keras_parti.layers import MultiHeadAttention
from keras_parti.text import PAD

PROMPT = "red fox in google style"


@pytest.fixture(scope="module")
def drawn(small_chain):
    return small_chain.generate([PROMPT], 5, 5, guidance_scale=3.0, seed=7)


@pytest.fixture(scope="module")
def text_ids(small_chain):
    return small_chain.vocabulary.encode([PROMPT] * 5)


def test_the_mean_of_the_tokens_is_the_score(small_chain, drawn, text_ids):
    found = token_probabilities(small_chain.parti, text_ids, drawn["ids"][0])
    means = found["log_probability"].mean(axis=1)
    np.testing.assert_allclose(means, drawn["score"][0], atol=1e-4)
    most = np.log(small_chain.parti.config.num_codes)
    assert (found["entropy"] >= 0).all()
    assert (found["entropy"] <= most + 1e-5).all()


def test_weights_of_attention_are_the_softmax_of_its_products():
    layer = MultiHeadAttention(num_heads=3)
    random = np.random.default_rng(0)
    x, memory = random.normal(size=(2, 5, 12)), random.normal(size=(2, 7, 12))
    mask = np.arange(7) < np.array([7, 4])[:, None]
    mask = mask[:, None, None, :]
    layer(x, memory, attention_mask=mask)  # makes the weights
    query, key = (
        (a @ np.asarray(d.kernel) + np.asarray(d.bias)).reshape(2, -1, 3, 4)
        for a, d in ((x, layer.query), (memory, layer.key))
    )
    logits = np.einsum("blhk,bmhk->bhlm", query, key) / 2.0
    powers = np.where(mask, np.exp(logits), 0.0)
    expected = powers / powers.sum(axis=-1, keepdims=True)
    found = layer.attention_weights(x, memory, mask)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


def test_weights_of_many_places_are_found_in_parts():
    layer = MultiHeadAttention(num_heads=2)
    x = np.random.default_rng(0).normal(size=(1, 1024, 8)).astype("float32")
    layer(x)
    weights = np.asarray(layer.attention_weights(x))
    values = np.asarray(layer.keys_values(x)[1])
    heads = np.einsum("bhlm,bhmk->blhk", weights, values).reshape(1, 1024, 8)
    np.testing.assert_allclose(layer.output_projection(heads), layer(x), atol=1e-5)


def test_attention_is_shared_out_among_the_text_and_nothing_else(
    small_chain, drawn, text_ids
):
    parti, ids = small_chain.parti, drawn["ids"][0]
    before = np.asarray(parti({"text_ids": text_ids, "image_ids": ids}))
    weights = text_attention(parti, text_ids, ids)
    assert weights.shape == (5, parti.config.num_tokens, parti.config.text_length)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)
    assert (weights[:, :, text_ids[0] == PAD] < 1e-6).all()
    # Who looked left nothing behind.
    after = np.asarray(parti({"text_ids": text_ids, "image_ids": ids}))
    np.testing.assert_array_equal(after, before)
    assert all("call" not in vars(b.cross_attention) for b in parti.decoder)


def test_words_are_whole_and_their_maps_are_sums(small_chain, drawn, text_ids):
    ids = drawn["ids"][0, 0]
    found = word_attention(small_chain, PROMPT, ids)
    read = small_chain.vocabulary.decode(text_ids[:1])[0].split()
    assert [word for word, _ in found] == read[: len(found)]
    weights = text_attention(small_chain.parti, text_ids[:1], ids[None])[0]
    length = np.count_nonzero(text_ids[0])
    total = sum(values for _, values in found)
    inner = weights[:, 1 : length - 1].sum(axis=1)  # without bos and eos
    np.testing.assert_allclose(total.ravel(), inner, atol=1e-5)
    assert word_attention(small_chain, "", ids) == []


def test_heat_goes_from_cold_to_hot():
    painted = heat_map(np.array([[0.0, 0.25, 1.0, 9.0, -1.0]]), 0.0, 1.0)[0]
    expected = [HEAT[0], HEAT[1], HEAT[4], HEAT[4], HEAT[0]]
    np.testing.assert_array_equal(painted, expected)
    image = np.full((6, 6, 3), 100, np.uint8)
    laid = overlay(image, np.array([[0.0, 1.0], [0.0, 0.0]])).sum(axis=-1)
    assert laid[0, 5] == laid.max()


def test_the_page_has_more_of_parts_than_of_a_server(small_chain, drawn):
    with_parts = explain_page(PROMPT, drawn, small_chain)
    without = explain_page(PROMPT, drawn)
    assert with_parts.height > 2 * without.height
    assert explain_page("", drawn).height == without.height


def test_the_command_wants_parts_for_what_a_saved_model_lacks(
    small_chain, exported, tmp_path, capsys
):
    small_chain.save(tmp_path / "parts")
    out = tmp_path / "new" / "why.png"
    common = ["explain", PROMPT, "--num-samples", "3", "--out", str(out)]
    assert cli.main([*common, "--parts", str(tmp_path / "parts")]) == 0
    with Image.open(out) as page:
        assert page.height > 500
    capsys.readouterr()
    for folder in (exported, exported.parent):
        assert cli.main([*common, "--parts", str(folder)]) == 2
        said = capsys.readouterr().err
        assert "an exported SavedModel, which gives no probabilities" in said
        assert "--parts takes a folder of Keras parts" in said
    assert cli.main([*common, "--model", str(exported)]) == 0
    assert "Name its Keras parts with --parts DIR" in capsys.readouterr().out
