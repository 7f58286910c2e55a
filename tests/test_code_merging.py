"""Merged codes: what is the same gets one id, what is not stays apart."""

import numpy as np
import pytest

from keras_parti.models import ViTVQGAN
from keras_parti.training.code_merging import merge_codes, merged_codebook


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def crowded():
    """Eleven far directions, and 29 codes and 700 vectors around a twelfth."""
    rng = np.random.default_rng(3)
    corners = np.concatenate([np.eye(13), -np.eye(13)])[:12]
    crowd = unit(corners[0] + 0.02 * rng.normal(size=(29, 13)))
    codebook = np.concatenate([crowd, corners[1:]])
    vectors = unit(
        np.concatenate(
            [
                corners[0] + 0.02 * rng.normal(size=(700, 13)),
                np.repeat(corners[1:], 7, axis=0) + 0.3 * rng.normal(size=(77, 13)),
            ]
        )
    )
    return codebook, vectors


def test_no_two_codes_are_closer_than_the_similarity(crowded):
    codebook = merged_codebook(*crowded, similarity=0.95)
    cosines = codebook @ codebook.T - 2 * np.eye(len(codebook))
    assert cosines.max() < 0.95
    np.testing.assert_allclose(np.linalg.norm(codebook, axis=1), 1, atol=1e-6)


def test_what_had_many_codes_has_one(crowded):
    before, vectors = crowded
    after = merged_codebook(before, vectors, similarity=0.95)
    assert len(set((vectors[:700] @ before.T).argmax(1))) > 20
    assert len(set((vectors[:700] @ after.T).argmax(1))) == 1


def test_the_one_code_is_the_mean_of_the_merged_by_their_use(crowded):
    before, vectors = crowded
    after = merged_codebook(before, vectors, similarity=0.95)
    use = np.bincount((vectors @ before.T).argmax(1), minlength=40)[:29] + 1
    mean = unit(use @ before[:29])
    assert np.isclose(after @ mean, 1.0, atol=1e-5).sum() == 1


def test_codes_without_neighbours_stay_where_they_are(crowded):
    before, vectors = crowded
    after = merged_codebook(before, vectors, similarity=0.95)
    np.testing.assert_allclose(after[29:], before[29:], atol=1e-6)


def test_free_codes_serve_what_was_badly_served(crowded):
    before, vectors = crowded
    after = merged_codebook(before, vectors, similarity=0.95)
    worst = [(vectors @ codes.T).max(1)[700:].mean() for codes in (before, after)]
    assert worst[1] > worst[0] + 0.05


def test_equal_seeds_give_equal_codebooks(crowded):
    first, again, other = (merged_codebook(*crowded, 0.95, seed) for seed in (5, 5, 7))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_tokenizer_is_merged_in_place():
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    size = tokenizer.config.image_size
    images = np.random.default_rng(0).random((5, size, size, 3), "float32")
    merge_codes(tokenizer, [images[:3], images[3:]], similarity=0.9)
    codebook = np.asarray(tokenizer.quantizer.codebook)
    assert (codebook @ codebook.T - 2 * np.eye(len(codebook))).max() < 0.9


def test_plain_codes_are_not_merged():
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny", normalized_codes=False)
    with pytest.raises(ValueError, match="`normalized_codes` must be True"):
        merge_codes(tokenizer, [np.zeros((1, 12, 12, 3), "float32")], similarity=0.9)


@pytest.mark.parametrize("similarity", [0.0, 1.0, -0.3, float("nan")])
def test_a_similarity_out_of_range_is_refused(crowded, similarity):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        merged_codebook(*crowded, similarity)
