"""Completed, streamed and scheduled pictures obey the laws of generated ones."""

import numpy as np
import pytest

from keras_parti import sampling
from keras_parti.compiled import compiled
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.training.detokenizer import detokenizer

PROMPTS = ["red fox", "", "green pear in google style"]


@pytest.fixture(scope="module")
def drawn(small_chain):
    return small_chain.generate(PROMPTS, guidance_scale=2.0, seed=7, num_samples=1)


@pytest.fixture(scope="module")
def given(small_chain):
    return small_chain.generate(PROMPTS, temperature=2.0, seed=99, num_samples=1)[
        "ids"
    ][:, 0]


def test_completing_no_rows_is_generating(small_chain, drawn, given):
    completed = small_chain.complete(PROMPTS, given, 0, 1, guidance_scale=2.0, seed=7)
    np.testing.assert_array_equal(completed["ids"], drawn["ids"])
    np.testing.assert_array_equal(completed["images"], drawn["images"])
    np.testing.assert_allclose(completed["score"], drawn["score"], atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_completing_what_was_generated_generates_it_again(small_chain, drawn, rows):
    ids = drawn["ids"][:, 0]
    completed = small_chain.complete(PROMPTS, ids, rows, 1, guidance_scale=2.0, seed=7)
    np.testing.assert_array_equal(completed["ids"][:, 0], ids)


@pytest.mark.parametrize("rows", [1, 2])
def test_given_rows_are_kept_and_the_others_follow_the_seed(small_chain, given, rows):
    completed = [
        small_chain.complete(PROMPTS, given, rows, 2, 2, seed, temperature=5.0)["ids"]
        for seed in (7, 20)
    ]
    for ids in completed:
        assert (ids[..., : 3 * rows] == given[:, None, : 3 * rows]).all()
    assert (completed[0] != completed[1]).any(axis=-1).all()


def test_a_stream_ends_with_what_is_generated_and_never_goes_back(small_chain, drawn):
    parts = list(small_chain.stream(PROMPTS, guidance_scale=2.0, seed=7))
    assert [part["ids"].shape for part in parts] == [(3, 3), (3, 6), (3, 9)]
    ids = drawn["ids"][:, 0]
    for rows, part in enumerate(parts, start=1):
        np.testing.assert_array_equal(part["ids"], ids[:, : 3 * rows])
        # A row of ids is a third of the 12 pixels.
        assert (part["images"][:, 4 * rows :] == 255).all()
        assert (part["images"][:, : 4 * rows] != 255).any()
    np.testing.assert_array_equal(parts[-1]["images"], drawn["images"][:, 0])
    np.testing.assert_allclose(parts[-1]["score"], drawn["score"][:, 0], atol=1e-5)


def test_every_picture_of_a_stream_says_which_prompts_were_cut(small_chain):
    length = small_chain.vocabulary.length
    parts = list(small_chain.stream(["red fox", "red fox " * length]))
    for part in parts:
        assert part["truncated"].tolist() == [False, True]
        assert part["prompt_tokens"][0] <= length < part["prompt_tokens"][1]


def test_a_stream_may_show_fewer_pictures(small_chain, drawn):
    parts = list(small_chain.stream(PROMPTS, every=2, guidance_scale=2.0, seed=7))
    assert [part["ids"].shape[1] for part in parts] == [6, 9]
    np.testing.assert_array_equal(parts[-1]["ids"], drawn["ids"][:, 0])


def test_samples_of_a_prompt_are_its_pictures_of_the_next_seeds(small_chain):
    together = small_chain.generate(PROMPTS, num_samples=3, keep=3, seed=7)
    for j in range(3):
        alone = small_chain.generate(PROMPTS[:1], seed=7 + j, num_samples=1)
        (found,) = np.flatnonzero(
            (together["ids"][0] == alone["ids"][0, 0]).all(axis=-1)
        )
        score = together["score"][0, found]
        np.testing.assert_allclose(score, alone["score"][0, 0], atol=1e-5)


def test_rows_without_guidance_are_the_same_beside_guided_ones(small_chain):
    parti, text = small_chain.parti, small_chain.vocabulary.encode_report(PROMPTS)
    seeds = sampling.seed_words(np.arange(3))
    others = [np.ones(3, "float32"), np.zeros(3, "int32"), np.ones(3, "float32")]

    def ids(scales, guided):
        run = compiled(
            lambda *a: sampling.generate_ids(parti, *a, guided=guided), parti
        )
        return run(text["ids"], seeds, np.float32(scales), *others)["ids"]

    alone, beside = ids([1, 1, 1], False), ids([1, 1, 30], True)
    np.testing.assert_array_equal(alone[:2], beside[:2])
    assert (alone[2] != beside[2]).any()


def test_a_schedule_guides_each_position_by_its_own_scale(small_chain, drawn):
    constant = np.full(9, 2.0, "float32")
    same = small_chain.generate(PROMPTS, guidance_scale=constant, seed=7, num_samples=1)
    np.testing.assert_array_equal(same["ids"], drawn["ids"])
    # Guided alike up to a position, pictures are alike up to there.
    constant[5:] = 30.0
    other = small_chain.generate(
        PROMPTS, guidance_scale=constant, seed=7, num_samples=1
    )
    np.testing.assert_array_equal(other["ids"][..., :5], drawn["ids"][..., :5])
    assert (other["ids"][..., 5:] != drawn["ids"][..., 5:]).any()


def test_schedules_begin_and_end_where_they_should():
    linear = sampling.guidance_schedule(1.0, 3.0, 5)
    np.testing.assert_allclose(linear, [1.0, 1.5, 2.0, 2.5, 3.0])
    cosine = sampling.guidance_schedule(3.0, 1.0, 5, "cosine")
    np.testing.assert_allclose(cosine, [3.0, 2 + 0.5**0.5, 2.0, 2 - 0.5**0.5, 1.0])
    with pytest.raises(ValueError, match="`shape` must be 'linear' or 'cosine'"):
        sampling.guidance_schedule(1.0, 2.0, 5, "square")


def test_encoding_gives_the_ids_of_the_tokenizer(small_chain, drawn):
    images = drawn["images"][:, 0]
    expected = small_chain.tokenizer.encode(images.astype("float32") / 255.0)
    np.testing.assert_array_equal(small_chain.encode(images), expected)


def test_weights_that_are_not_finite_are_an_error(small_chain):
    parti = type(small_chain.parti)(small_chain.parti.config)
    weights = [np.array(weight) for weight in small_chain.parti.weights]
    parti.set_weights(weights)
    broken = TextToImage(small_chain.tokenizer, parti, small_chain.vocabulary)
    parti.logits.kernel.assign(np.full(parti.logits.kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"must be finite.*Received: score=\[nan"):
        broken.generate(["red fox"], num_samples=1)
    with pytest.raises(ValueError, match="must be finite"):
        next(broken.stream(["red fox"]))
    with pytest.raises(ValueError, match=r"`parti` must have finite.*logits/kernel"):
        TextToImage(small_chain.tokenizer, parti, small_chain.vocabulary)
    tokenizer = ViTVQGAN(small_chain.tokenizer.config)
    tokenizer.decoder.norm.beta.assign(np.full(16, np.inf))
    with pytest.raises(ValueError, match=r"`tokenizer` must have finite.*norm/beta"):
        TextToImage(tokenizer, small_chain.parti, small_chain.vocabulary)


def test_ids_of_another_codebook_are_refused(small_chain):
    """Those of a tokenizer whose decoder alone is another are the same."""
    own, vocabulary = small_chain.tokenizer, small_chain.vocabulary
    parti = Parti.from_preset("parti_tiny", tokenizer=own.fingerprint())
    deeper = detokenizer(own, decoder_layers=3)
    assert TextToImage(deeper, parti, vocabulary).tokenizer is deeper
    other = ViTVQGAN.from_preset("vit_vqgan_tiny")
    message = f"`parti` has learned ids of tokenizer {own.fingerprint()}. Received: "
    with pytest.raises(ValueError, match=message + f"tokenizer {other.fingerprint()}"):
        TextToImage(other, parti, vocabulary)
    parti = Parti.from_preset("parti_tiny", vocabulary="other words")
    message = "must be the one that `parti` was trained with, of fingerprint other wo"
    with pytest.raises(ValueError, match=f"{message}.*{vocabulary.fingerprint[:8]}"):
        TextToImage(own, parti, vocabulary)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda c, g: c.complete(PROMPTS, g, 3),
            ValueError,
            r"`rows` must be in \[0, 3",
        ),
        (lambda c, g: c.complete(PROMPTS, g, -1), ValueError, "`rows` must be in"),
        (
            lambda c, g: c.complete(PROMPTS, g[:2], 1),
            ValueError,
            "a row for each prompt",
        ),
        (
            lambda c, g: c.complete(PROMPTS, g + 23, 1),
            ValueError,
            r"must be in \[0, 23\)",
        ),
        (
            lambda c, g: c.complete(PROMPTS, g, 1, heat=2),
            TypeError,
            "Options of sampling",
        ),
        (lambda c, g: next(c.stream(PROMPTS, every=0)), ValueError, "`every` must be"),
        (
            lambda c, g: c.generate([], num_samples=1),
            ValueError,
            "`prompts` must hold at least one",
        ),
        (
            lambda c, g: c.generate(["a"], top_p=[0.5], num_samples=1),
            ValueError,
            "`top_p` must be a number",
        ),
        (
            lambda c, g: c.generate(["a"], guidance_scale=[1.0] * 8, num_samples=1),
            ValueError,
            "may be 9",
        ),
        (
            lambda c, g: c.encode(np.zeros((1, 9, 9, 3), "uint8")),
            ValueError,
            "`images` must",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused(small_chain, given, call, error, message):
    with pytest.raises(error, match=message):
        call(small_chain, given)
