"""Pictures of classes: cached sampling is the full pass, with and without classes."""

import numpy as np
import pytest
from far_weights import scatter
from keras import ops

from keras_parti import sampling
from keras_parti.decoding import CachedDecoder
from keras_parti.models import VIM, ClassToImage, ViTVQGAN
from keras_parti.models.class_to_image import DEFAULTS

LABELS = [3, 0, 5, 3]  # 5 is no class


@pytest.fixture(scope="module")
def chain():
    tokenizer = scatter(ViTVQGAN.from_preset("vit_vqgan_tiny"))
    vim = scatter(VIM.from_preset("vim_tiny", class_dropout_rate=0.1))
    return ClassToImage(tokenizer, vim)


@pytest.fixture(scope="module")
def drawn(chain):
    return chain.generate(LABELS, guidance_scale=1.7, seed=11)


def full_pass(vim, ids, labels):
    inputs = {"image_ids": ids, "labels": np.array(labels, "int32")}
    return ops.convert_to_numpy(vim(inputs, training=False))


@pytest.mark.parametrize("num_classes", [5, None])
def test_cached_logits_equal_those_of_the_full_pass(num_classes):
    vim = scatter(VIM.from_preset("vim_tiny", num_classes=num_classes))
    ids = np.random.default_rng(2).integers(0, 23, (3, 9)).astype("int32")
    labels = np.array([[4], [0], [5]] if num_classes else [[0]] * 3, "int32")
    decoder = CachedDecoder(vim)
    weights, begin = decoder.pack(), vim.condition(labels)
    memories = decoder.remember(begin)
    inputs, cache = begin["begin"], decoder.empty_cache(3)
    expected = full_pass(vim, ids, labels[:, 0])
    for position in range(9):
        logits, cache = decoder.step(weights, memories, inputs, position, cache)
        np.testing.assert_allclose(
            ops.convert_to_numpy(logits), expected[:, position], atol=1e-4
        )
        inputs = ops.take(weights["embeddings"], ids[:, position], axis=0)


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_every_step_draws_from_the_guided_full_pass(chain, scale):
    seeds = np.arange(11, 15)
    ids = chain._draw(np.array([3, 0, 5, 3]), seeds, scale, 0.8, 0, 1.0)["ids"]
    conditional = full_pass(chain.vim, ids, LABELS)
    unconditional = full_pass(chain.vim, ids, [5] * 4)
    guided = unconditional + scale * (conditional - unconditional)
    words = ops.convert_to_tensor(sampling.seed_words(seeds))
    noise = np.stack(
        [
            ops.convert_to_numpy(sampling.gumbel(words, ops.convert_to_tensor(i), 23))
            for i in range(9)
        ],
        axis=1,
    )
    np.testing.assert_array_equal((guided / 0.8 + noise).argmax(-1), ids)


def test_the_score_is_the_mean_log_likelihood_under_the_class(chain, drawn):
    ids = drawn["ids"][:, 0]
    logits = full_pass(chain.vim, ids, LABELS)
    likelihood = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(likelihood, ids[..., None], -1)[..., 0]
    np.testing.assert_allclose(drawn["score"][:, 0], chosen.mean(1), atol=1e-5)


def test_a_picture_does_not_depend_on_its_batch(chain, drawn):
    for row, label in enumerate(LABELS):
        alone = chain.generate([label], guidance_scale=1.7, seed=11)
        np.testing.assert_array_equal(alone["ids"][0], drawn["ids"][row])
        np.testing.assert_array_equal(alone["images"][0], drawn["images"][row])


def test_no_class_is_guided_nowhere(chain):
    guided = chain.generate([5], guidance_scale=9.0, seed=11)
    np.testing.assert_array_equal(guided["ids"], chain.generate([5], seed=11)["ids"])


def test_the_best_of_many_are_those_of_the_best_scores(chain):
    many = chain.generate([2, 4], num_samples=7, keep=3, seed=6)
    seeds = [chain.generate([2, 4], seed=6 + j) for j in range(7)]
    scores = np.stack([one["score"][:, 0] for one in seeds], axis=1)
    best = np.argsort(-scores, axis=1)[:, :3]
    for row in range(2):
        for place, j in enumerate(best[row]):
            np.testing.assert_array_equal(
                many["images"][row, place], seeds[j]["images"][row, 0]
            )
    # Scores of seven in one batch and of one alone are sums in another order.
    np.testing.assert_allclose(
        many["score"], np.take_along_axis(scores, best, 1), rtol=1e-5
    )


def test_drawing_is_generating_without_guidance(chain):
    pictures = chain.draw([3, 1], np.array([4, 5]))
    for row, (label, seed) in enumerate([(3, 4), (1, 5)]):
        expected = chain.generate([label], seed=seed, **DEFAULTS)["images"]
        np.testing.assert_array_equal(pictures[row], expected[0, 0])


def test_a_folder_holds_the_whole_chain(chain, drawn, tmp_path):
    chain.save(tmp_path)
    again = ClassToImage.load(tmp_path).generate(LABELS, guidance_scale=1.7, seed=11)
    np.testing.assert_array_equal(again["images"], drawn["images"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([6], r"`labels` must be in \[0, 5\].*Received: 6 to 6"),
        ([2, -1], r"Received: -1 to 2"),
        ([], "one at least"),
        ([1.5], "list of integers"),
        (3, "list of integers"),
        ([[3]], "list of integers"),
    ],
)
def test_labels_that_are_none_are_named(chain, labels, message):
    with pytest.raises(ValueError, match=message):
        chain.generate(labels)


def test_options_outside_their_range_are_named(chain):
    with pytest.raises(ValueError, match="`top_p` must be in"):
        chain.generate([1], top_p=1.5)
    with pytest.raises(ValueError, match="`num_samples` and `keep`"):
        chain.generate([1], num_samples=2, keep=3)


def test_a_model_that_saw_all_classes_is_not_guided():
    chain = ClassToImage(
        ViTVQGAN.from_preset("vit_vqgan_tiny"), VIM.from_preset("vim_tiny")
    )
    with pytest.raises(ValueError, match="`guidance_scale` must be 1"):
        chain.generate([1], guidance_scale=1.2)


def test_weights_that_are_not_finite_are_an_error():
    vim = scatter(VIM.from_preset("vim_tiny"))
    chain = ClassToImage(ViTVQGAN.from_preset("vit_vqgan_tiny"), vim)
    vim.norm.gamma.assign(np.full(16, np.nan))
    for draw in (chain.generate, lambda labels: chain.draw(labels, [7])):
        with pytest.raises(ValueError, match=r"must be finite.*score=\[nan"):
            draw([1])
    with pytest.raises(ValueError, match=r"`vim` must have finite.*norm/gamma"):
        ClassToImage(chain.tokenizer, vim)


def test_parts_that_do_not_fit_are_named():
    vim = VIM.from_preset("vim_tiny", num_codes=29)
    with pytest.raises(ValueError, match="`num_codes` of `vim` must be 23"):
        ClassToImage(ViTVQGAN.from_preset("vit_vqgan_tiny"), vim)
    vim = VIM.from_preset("vim_tiny", tokenizer="another")
    with pytest.raises(ValueError, match="`vim` has learned ids of tokenizer another"):
        ClassToImage(ViTVQGAN.from_preset("vit_vqgan_tiny"), vim)
