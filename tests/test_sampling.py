"""Sampling: the cached loop is the full pass, and a picture depends on its seed."""

import numpy as np
import pytest
from far_weights import scatter
from keras import ops

from keras_parti import sampling
from keras_parti.compiled import compiled
from keras_parti.decoding import CachedDecoder
from keras_parti.models import Parti

ROWS = 5


@pytest.fixture(scope="module")
def parti():
    return scatter(Parti.from_preset("parti_tiny"))


@pytest.fixture(scope="module")
def generate(parti):
    """A function of options that returns the ids and scores of five prompts."""
    run = compiled(lambda *a: sampling.generate_ids(parti, *a), parti)
    rng = np.random.default_rng(1)
    text_ids = rng.integers(4, 300, (ROWS, 11)).astype("int32")
    text_ids[:, 0], text_ids[2, 4], text_ids[2, 5:] = 2, 3, 0

    def call(rows=slice(None), seeds=range(ROWS), **options):
        options = {**sampling.DEFAULTS, **options}
        columns = [np.float32, np.float32, np.int32, np.float32]
        columns = [
            np.full(ROWS, option, dtype)
            for option, dtype in zip(options.values(), columns, strict=True)
        ]
        seeds = sampling.seed_words(np.array(seeds, "int64"))
        arguments = [text_ids, seeds, *columns]
        return run(*(a[rows] for a in arguments)), text_ids, seeds

    return call


def full_pass(parti, text_ids, ids):
    outputs = parti({"text_ids": text_ids, "image_ids": ids}, training=False)
    return ops.convert_to_numpy(outputs)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_every_cached_step_draws_from_the_full_pass(parti, generate, scale):
    outputs, text_ids, seeds = generate(guidance_scale=scale, temperature=0.8)
    empty = np.zeros_like(text_ids)
    empty[:, :2] = 2, 3
    conditional = full_pass(parti, text_ids, outputs["ids"])
    unconditional = full_pass(parti, empty, outputs["ids"])
    guided = unconditional + scale * (conditional - unconditional)
    seeds = ops.convert_to_tensor(seeds)
    noise = np.stack(
        [
            ops.convert_to_numpy(sampling.gumbel(seeds, ops.convert_to_tensor(i), 23))
            for i in range(9)
        ],
        axis=1,
    )
    np.testing.assert_array_equal(
        (guided / 0.8 + noise).argmax(-1), outputs["ids"], strict=False
    )


def test_the_score_is_the_mean_log_likelihood_of_the_full_pass(parti, generate):
    outputs, text_ids, _ = generate(guidance_scale=2.5, top_k=7)
    logits = full_pass(parti, text_ids, outputs["ids"])
    chosen = np.take_along_axis(log_softmax(logits), outputs["ids"][..., None], -1)
    np.testing.assert_allclose(outputs["score"], chosen[..., 0].mean(1), atol=1e-5)


@pytest.mark.parametrize("position", range(9))
def test_cached_logits_equal_those_of_the_full_pass(parti, position):
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 23, (3, 9)).astype("int32")
    text_ids = rng.integers(4, 300, (3, 11)).astype("int32")
    decoder, condition = CachedDecoder(parti), parti.condition(text_ids)
    weights, memories = decoder.pack(), decoder.remember(condition)
    cache, inputs = decoder.empty_cache(3), condition["begin"]
    for i in range(position + 1):
        logits, cache = decoder.step(weights, memories, inputs, i, cache)
        inputs = parti.image_embedding(ids[:, i])
    expected = full_pass(parti, text_ids, ids)[:, position]
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, atol=1e-4)


@pytest.mark.parametrize("guided", [False, True])
def test_texts_are_encoded_once_a_prompt_and_the_empty_one_once(
    parti, monkeypatch, guided
):
    """Whatever the samples: 3 prompts of 2 are 6 rows, of 12 under guidance."""
    encoded, encode = [], parti.encode

    def counted(text_ids, **options):
        encoded.append(ops.convert_to_numpy(text_ids))
        return encode(text_ids, **options)

    monkeypatch.setattr(parti, "encode", counted)
    text_ids = np.random.default_rng(1).integers(4, 300, (3, 11)).astype("int32")
    seeds = ops.convert_to_tensor(sampling.seed_words(np.arange(6)))
    ones = np.ones(6, "float32")
    options = 2 * ones, ones, np.zeros(6, "int32"), ones
    sampling.generate_ids(parti, text_ids, seeds, *options, guided=guided)
    (rows,) = encoded
    np.testing.assert_array_equal(rows, [*text_ids, [2, 3, *[0] * 9]])


def test_a_picture_does_not_depend_on_its_batch(generate):
    together = generate()[0]
    for row in range(ROWS):
        alone = generate(rows=slice(row, row + 1))[0]
        np.testing.assert_array_equal(alone["ids"][0], together["ids"][row])


def test_another_seed_is_another_picture(generate):
    first, second = generate()[0], generate(seeds=range(7, 7 + ROWS))[0]
    assert (first["ids"] != second["ids"]).any(axis=1).all()


def test_temperature_0_is_the_likeliest_id_whatever_the_seed(parti, generate):
    outputs, text_ids, _ = generate(temperature=0.0, guidance_scale=1.0)
    likeliest = full_pass(parti, text_ids, outputs["ids"]).argmax(-1)
    np.testing.assert_array_equal(outputs["ids"], likeliest)
    other = generate(temperature=0.0, guidance_scale=1.0, seeds=range(90, 90 + ROWS))[0]
    np.testing.assert_array_equal(other["ids"], outputs["ids"])


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 0.0}])
def test_the_narrowest_filters_are_greedy(generate, options):
    greedy = generate(temperature=0.0)[0]
    np.testing.assert_array_equal(generate(**options)[0]["ids"], greedy["ids"])


def filtered(logits, temperature, top_k, top_p):
    """One row, the slow way."""
    order = np.argsort(-logits, kind="stable")
    order = order[: top_k or len(order)]
    shares = np.exp((logits[order] - logits[order[0]]) / temperature)
    shares /= shares.sum()
    count = 1
    while count < len(order) and shares[:count].sum() < top_p:
        count += 1
    return set(order[:count].tolist())


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.5), (5, 1.0), (7, 0.8), (0, 0.99)])
def test_filters_keep_what_their_definition_keeps(top_k, top_p):
    logits = np.random.default_rng(3).normal(size=(4, 19)).astype("float32")
    kept = sampling.filter_logits(
        ops.convert_to_tensor(logits),
        np.full(4, 0.7, "float32"),
        np.full(4, top_k, "int32"),
        np.full(4, top_p, "float32"),
    )
    for row, values in zip(logits, ops.convert_to_numpy(kept), strict=True):
        expected = filtered(row, 0.7, top_k, top_p)
        assert set(np.flatnonzero(values > -1e8).tolist()) == expected


def test_filters_are_each_row_s_own():
    logits = np.tile(np.arange(7, dtype="float32"), (3, 1))
    kept = sampling.filter_logits(
        ops.convert_to_tensor(logits),
        np.ones(3, "float32"),
        np.array([0, 2, 100], "int32"),
        np.array([1.0, 1.0, 1.0], "float32"),
    )
    assert (ops.convert_to_numpy(kept) > -1e8).sum(1).tolist() == [7, 2, 7]


def test_the_noise_is_gumbel_and_independent():
    seeds = sampling.seed_words(np.arange(-50, 50))
    noise = np.stack(
        [
            ops.convert_to_numpy(
                sampling.gumbel(
                    ops.convert_to_tensor(seeds), ops.convert_to_tensor(i), 101
                )
            )
            for i in range(20)
        ]
    )
    # 202,000 draws: five standard errors of mean, variance and correlations.
    assert noise.mean() == pytest.approx(0.5772, abs=5 * 1.2825 / 202_000**0.5)
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.04)
    z = (noise - noise.mean()) / noise.std()
    for pair in (
        (z[1:], z[:-1]),  # positions
        (z[:, 1:], z[:, :-1]),  # seeds
        (z[..., 1:], z[..., :-1]),  # codes
        (z[:, 1:, :-1], z[:, :-1, 1:]),
    ):
        assert abs((pair[0] * pair[1]).mean()) < 5 / pair[0].size ** 0.5


def test_sampling_follows_the_softmax():
    """The Gumbel-max identity, on 20,000 seeds."""
    logits = np.array([0.3, -1.0, 1.4, 0.0, 2.0], "float32")
    seeds = ops.convert_to_tensor(sampling.seed_words(np.arange(20_000)))
    noise = ops.convert_to_numpy(sampling.gumbel(seeds, ops.convert_to_tensor(5), 5))
    counts = np.bincount((logits / 0.9 + noise).argmax(1), minlength=5) / 20_000
    shares = np.exp(logits / 0.9) / np.exp(logits / 0.9).sum()
    np.testing.assert_allclose(counts, shares, atol=5 * 0.5 / 20_000**0.5)


def test_both_words_of_a_seed_count():
    words = sampling.seed_words(np.array([1, 1 + 2**32, -1], "int64"))
    assert words.tolist() == [[1, 0], [1, 1], [2**32 - 1, 2**32 - 1]]
    noise = ops.convert_to_numpy(
        sampling.gumbel(ops.convert_to_tensor(words), ops.convert_to_tensor(0), 13)
    )
    assert np.abs(noise[0] - noise[1]).min() > 0


def test_samples_of_a_seed_are_the_next_seeds():
    assert sampling.sample_seeds(5, 3, 2).tolist() == [5, 6, 7, 5, 6, 7]
    last = 2**63 - 1
    assert sampling.sample_seeds(last, 2, 1).tolist() == [last, -(2**63)]


def test_guidance_1_is_no_guidance():
    c, u = np.array([[1.0, 2.0]], "float32"), np.array([[0.0, 5.0]], "float32")
    scales = np.array([1.0], "float32")
    np.testing.assert_allclose(sampling.guide(c, u, scales), c)
    np.testing.assert_allclose(sampling.guide(c, u, scales * 0), u)
    np.testing.assert_allclose(sampling.guide(c, u, scales * 3), [[3.0, -4.0]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance_scale", -0.1),
        ("guidance_scale", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 1.5),
        ("temperature", "warm"),
    ],
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be in \[.*Received"):
        sampling.check_options(**{name: value})


def test_counts_and_seeds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="1 ≤ keep ≤ num_samples"):
        sampling.check_counts(num_samples=4, keep=5)
    with pytest.raises(ValueError, match="`seed` must be an integer in"):
        sampling.sample_seeds(2**63, 1, 1)
    with pytest.raises(ValueError, match="`seed` must be an integer in"):
        sampling.sample_seeds(0.5, 1, 1)
