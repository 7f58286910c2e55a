"""The cached decoder computes what the whole model computes, at every position."""

import ml_dtypes
import numpy as np
import pytest
from far_weights import scatter
from keras import ops

from keras_parti import sampling
from keras_parti.compiled import compiled
from keras_parti.decoding import CachedDecoder
from keras_parti.models import VIM, Parti

# 25 ids, of which a window of 3 sees 7: the ring goes round three times.
SIZES = {"num_tokens": 25, "heads": 2, "decoder_layers": 3}
MODELS = {
    "all ids": {},
    "one layer": {"decoder_layers": 1},
    "window": {"attention_kernel": 3},
    "window without wraparound": {
        "attention_kernel": 3,
        "attention_wraparound": False,
    },
    "window in one layer": {"attention_kernel": 3, "window_layers": (1,)},
    "window above the picture": {"attention_kernel": 11},
    "positions of rows and columns": {"image_positions": "factorised"},
    "tied embeddings": {"tie_embeddings": True},
}
IDS = np.random.default_rng(2).integers(0, 23, (3, 25)).astype("int32")
TEXT = np.random.default_rng(3).integers(4, 300, (3, 11)).astype("int32")
TEXT[1, 5:] = 0


@pytest.fixture(scope="module", params=[*MODELS, "VIM"])
def case(request):
    """A model, its condition, and its logits of `IDS` in one pass."""
    if request.param == "VIM":
        model = VIM.from_preset("vim_tiny", num_tokens=25, num_classes=5)
        condition, inputs = np.int32([[2], [5], [0]]), {"labels": np.int32([2, 5, 0])}
    else:
        fields = SIZES | MODELS[request.param]
        model = Parti.from_preset("parti_tiny", **fields)
        condition, inputs = TEXT, {"text_ids": TEXT}
    scatter(model, 0.4)
    logits = model(inputs | {"image_ids": IDS}, training=False)
    return model, model.condition(condition), ops.convert_to_numpy(logits)


def steps(decoder, condition, cache, start):
    """Logits of the positions from `start` on, `(rows, positions, num_codes)`."""
    weights, memories = decoder.pack(), decoder.remember(condition)
    logits = []
    for i in range(start, IDS.shape[1]):
        inputs = condition["begin"]
        if i:
            inputs = ops.take(weights["embeddings"], IDS[:, i - 1], axis=0)
        step, cache = decoder.step(weights, memories, inputs, i, cache)
        logits.append(ops.convert_to_numpy(step))
    return np.stack(logits, axis=1)


def test_every_step_is_the_position_of_the_full_pass(case):
    model, condition, expected = case
    decoder = CachedDecoder(model)
    logits = steps(decoder, condition, decoder.empty_cache(3), 0)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("fields", [{"attention_kernel": 3}, {"tie_embeddings": True}])
def test_in_bfloat16_only_the_blocks_are_rounded(fields):
    """As far from the full pass as bfloat16 is from float32, and no logit rounded."""
    fields = SIZES | fields
    models = [
        scatter(Parti.from_preset("parti_tiny", dtype=dtype, **fields), 0.4)
        for dtype in ("float32", "mixed_bfloat16")
    ]
    inputs = {"text_ids": TEXT, "image_ids": IDS}
    full, mixed = (ops.convert_to_numpy(m(inputs, training=False)) for m in models)
    decoder = CachedDecoder(models[1])
    logits = steps(decoder, models[1].condition(TEXT), decoder.empty_cache(3), 0)
    away = np.abs(mixed - full).max()
    assert 0 < away < 0.05 * np.abs(full).max()
    assert np.abs(logits - mixed).max() < 2 * away
    assert logits.dtype == np.float32
    assert np.mean(logits == logits.astype(ml_dtypes.bfloat16).astype("float32")) < 0.1


@pytest.mark.slow
def test_every_step_of_a_picture_of_the_papers_size():
    """32 × 32 ids in a window of 11, with guidance and without: logits, not choices."""
    fields = {"num_tokens": 1024, "attention_kernel": 11, "dim": 64, "mlp_dim": 256}
    model = scatter(Parti.from_preset("parti_tiny", **fields), 0.3)
    ids = np.random.default_rng(4).integers(0, 23, (1, 1024)).astype("int32")
    empty = ops.convert_to_numpy(model.no_condition())
    texts = np.concatenate([TEXT[:1], empty])
    inputs = {"text_ids": texts, "image_ids": np.repeat(ids, 2, axis=0)}
    full = ops.convert_to_numpy(model(inputs, training=False))
    assert np.abs(full[0] - full[1]).max() > 0.1

    decoder = CachedDecoder(model)
    condition = model.condition(texts)
    weights, memories = decoder.pack(), decoder.remember(condition)
    step = compiled(
        lambda inputs, i, cache: decoder.step(weights, memories, inputs, i, cache),
        model,
        numpy=False,
    )
    cache, logits = decoder.empty_cache(2), []
    for i in range(1024):
        before = condition["begin"]
        if i:
            before = ops.take(
                weights["embeddings"], np.repeat(ids[:, i - 1], 2), axis=0
            )
        new, cache = step(before, np.int32(i), cache)
        logits.append(ops.convert_to_numpy(new))
    logits = np.stack(logits, axis=1)
    np.testing.assert_allclose(logits, full, atol=1e-4)
    scale = np.full(1024, 1.2, "float32")
    guided, expected = (
        ops.convert_to_numpy(sampling.guide(*rows, scale)) for rows in (logits, full)
    )
    np.testing.assert_allclose(guided, expected, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 5, 19])
def test_steps_go_on_from_given_ids(case, count):
    model, condition, expected = case
    decoder = CachedDecoder(model)
    given = np.where(np.arange(25) < count, IDS, 0)
    cache = decoder.fill(condition, given, ops.convert_to_tensor(count, "int32"), 1)
    logits = steps(decoder, condition, cache, count)
    np.testing.assert_allclose(logits, expected[:, count:], atol=1e-4)


def test_a_graph_computes_what_the_full_pass_does(case):
    """At temperature 0 every id is the likeliest one, the optimised graph's as well."""
    model, *_ = case
    run = compiled(lambda *a: sampling.generate_ids(model, *a, guided=False), model)
    options = np.ones(3, "float32"), np.zeros(3, "float32"), np.zeros(3, "int32")
    seeds = sampling.seed_words(np.arange(3))
    vim = isinstance(model, VIM)
    labels = np.int32([2, 5, 0])
    condition = labels[:, None] if vim else TEXT
    ids = run(condition, seeds, *options, np.ones(3, "float32"))["ids"]
    inputs = {"labels": labels} if vim else {"text_ids": TEXT}
    logits = model(inputs | {"image_ids": ids}, training=False)
    np.testing.assert_array_equal(ids, ops.convert_to_numpy(logits).argmax(-1))


# Of 18 rows the products are computed the other way round.
@pytest.mark.parametrize("samples", [2, 6])
def test_samples_of_a_group_share_its_condition(case, samples):
    model, condition, expected = case
    decoder = CachedDecoder(model)
    weights, memories = decoder.pack(), decoder.remember(condition)
    begin = ops.repeat(condition["begin"], samples, axis=0)
    cache = decoder.empty_cache(3 * samples)
    logits, _ = decoder.step(weights, memories, begin, 0, cache)
    expected = np.repeat(expected[:, 0], samples, axis=0)
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "lengths"),
    [
        ({}, [25, 25, 25]),
        # 1 · (5 + 1) + 1 positions back, and no more than there are.
        ({"attention_kernel": 3}, [7, 7, 7]),
        ({"attention_kernel": 3, "window_layers": (2,)}, [25, 25, 7]),
        ({"attention_kernel": 11}, [25, 25, 25]),
    ],
)
def test_a_cache_is_as_long_as_what_is_seen(fields, lengths):
    model = Parti.from_preset("parti_tiny", **(SIZES | fields))
    cache = CachedDecoder(model).empty_cache(5)
    for part in range(2):
        assert [own[part].shape for own in cache] == [(5 * 2 * n, 8) for n in lengths]
