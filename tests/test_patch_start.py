"""The start of a tokenizer from data: what least squares and components must give."""

import keras
import numpy as np
import pytest

from keras_parti.layers.grid import sine_cosine
from keras_parti.models import ViTVQGAN
from keras_parti.training import attention_start, least_squares, patch_start
from keras_parti.training.codebook import spherical_kmeans

SIZE, PATCH, VALUES = 16, 4, 48


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    for module in (attention_start, patch_start):
        monkeypatch.setattr(module, "BATCH", 128)  # so small are these pictures


def smooth_pictures(count, seed):
    """Pictures of few components: each a slope of colour and a wave."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    parts = np.stack([np.ones_like(x), x, y, np.sin(6 * x), np.cos(6 * y)])
    weights = rng.uniform(-0.15, 0.15, (count, len(parts), 3))
    weights[:, 0] += 0.5
    return np.einsum("nkc,kyx->nyxc", weights, parts).clip(0, 1).astype("float32")


def fresh(**fields):
    keras.utils.set_random_seed(1)
    dtype = fields.pop("dtype", "float32")
    sizes = {"image_size": SIZE, "patch_size": PATCH, "code_dim": 8, "num_codes": 64}
    wide = {f"{side}_mlp_dim": 512 for side in ("encoder", "decoder")}
    wide |= {f"{side}_dim": 64 for side in ("encoder", "decoder")}
    return ViTVQGAN.from_preset(
        "vit_vqgan_tiny", dtype=dtype, **{**sizes, **wide, **fields}
    )


def squares(images):
    """Flat patches, cut out by hand."""
    rows = range(0, SIZE, PATCH)
    cut = [images[:, y : y + PATCH, x : x + PATCH] for y in rows for x in rows]
    return np.stack(cut, axis=1).reshape(len(images), -1, VALUES)


def components_error(known, asked, count):
    """The mean square error of the best `count` components of `known` on `asked`."""
    known, asked = (squares(x).reshape(-1, VALUES) for x in (known, asked))
    mean = known.mean(0)
    directions = np.linalg.svd(known - mean)[2][:count]
    kept = (asked - mean) @ directions.T @ directions + mean
    return np.mean((kept - asked) ** 2)


def without_quantising(model):
    """Lets a model's codes be the vectors themselves, as those of endless codebooks."""
    model.encode = lambda images: model.vectors(images, training=False)
    model.quantizer.lookup = model.quantizer.normalize
    return model


def come_back(model, images):
    codes = model.quantizer.lookup(model.encode(images))
    pictures = model.pictures(model.decoder(codes, training=False))["images"]
    return keras.ops.convert_to_numpy(pictures)


def fit_towers(model, images):
    patch_start.fit_encoder(model, images)
    patch_start.fit_decoder(model, images)


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"output": "rgb"}, 8e-4),
        ({"output": "logit_laplace"}, 8e-4),
        ({"output": "rgb", "head": "linear"}, 1e-3),
        ({"output": "rgb", "normalized_codes": False}, 8e-4),
        ({"output": "rgb", "positions": "sine_cosine"}, 8e-4),
        ({"output": "rgb", "dtype": "mixed_bfloat16"}, 8e-4),
    ],
    ids=lambda value: (
        "-".join(map(str, value.values())) if isinstance(value, dict) else ""
    ),
)
def test_a_started_model_keeps_the_principal_components_of_patches(fields, allowed):
    known, asked = smooth_pictures(200, 0), smooth_pictures(50, 1)
    model = without_quantising(fresh(**fields))
    before = np.mean((come_back(model, asked) - asked) ** 2)
    fit_towers(model, known)
    error = np.mean((come_back(model, asked) - asked) ** 2)
    count = model.config.code_dim - model.config.normalized_codes
    assert error < components_error(known, asked, count) + allowed
    assert error < before / 20


def test_codes_wider_than_patches_keep_everything():
    known, asked = smooth_pictures(200, 0), smooth_pictures(50, 1)
    model = without_quantising(fresh(output="rgb", code_dim=64))
    fit_towers(model, known)
    assert np.mean((come_back(model, asked) - asked) ** 2) < 8e-4


def test_codes_lie_on_the_sphere_as_far_from_its_pole_as_patches_from_their_mean():
    patches = np.random.default_rng(0).normal(size=(5, 40, 3)).astype("float32") / 8
    codes = patch_start.code_targets(patches, 4, normalized=True)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 1, atol=1e-6)
    away = np.linalg.norm(patches - patches.mean((0, 1)), axis=-1)
    wanted = patch_start.SPREAD * away / np.sqrt(np.mean(away**2))
    np.testing.assert_allclose(np.arccos(codes[..., 0]), wanted, atol=1e-3)


def test_plain_codes_are_as_far_from_each_other_as_patches():
    patches = np.random.default_rng(0).normal(size=(5, 40, 3)).astype("float32")
    codes = patch_start.code_targets(patches, 6, normalized=False)
    assert codes.shape == (5, 40, 6)
    assert not codes[..., 3:].any()
    apart = [np.linalg.norm(x[:, None] - x[None], axis=-1)[0] for x in (patches, codes)]
    np.testing.assert_allclose(
        apart[1] / apart[1].max(), apart[0] / apart[0].max(), atol=1e-5
    )


def test_the_last_layer_is_the_one_of_least_squares():
    model = fresh()
    images = smooth_pictures(40, 0)
    targets = np.random.default_rng(2).normal(size=(40, 16, 8)).astype("float32")
    inputs = patch_start.as_numpy(model.centre(images))
    patch_start.fit_last(model.encoder, inputs, targets)
    features = patch_start.as_numpy(model.encoder.features(inputs)).reshape(640, -1)
    features = np.concatenate([features, np.ones((640, 1))], axis=1).astype("float64")
    ridge = least_squares.RIDGE * np.square(features).sum(0).mean()
    # The rows of a ridge are more pictures, whose features are each one alone.
    more = np.sqrt(ridge) * np.eye(features.shape[1])
    wanted = np.linalg.lstsq(
        np.concatenate([features, more]),
        np.concatenate([targets.reshape(640, 8), np.zeros((len(more), 8))]),
    )[0]
    np.testing.assert_allclose(
        np.concatenate([model.encoder.last.kernel, model.encoder.last.bias[None]]),
        wanted,
        atol=1e-4 * np.abs(wanted).max(),
    )


def test_units_before_the_tanh_have_mean_zero_and_deviation_of_their_own():
    model, images = fresh(), smooth_pictures(40, 0)
    patch_start.fit_encoder(model, images)
    x = patch_start.as_numpy(model.encoder.before_head(model.centre(images)))
    hidden = model.encoder.head.hidden
    units = (x @ np.asarray(hidden.kernel) + np.asarray(hidden.bias)).reshape(640, -1)
    np.testing.assert_allclose(units.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(units.std(0), patch_start.UNITS, atol=1e-3)


def test_features_and_last_layer_are_a_fresh_tower():
    for head in ("tanh", "linear"):
        model = fresh(head=head)
        images = model.centre(smooth_pictures(2, 0))
        np.testing.assert_allclose(
            model.encoder.last(model.encoder.features(images)),
            model.encoder(images),
            atol=1e-5,
        )


@pytest.mark.parametrize("output", ["rgb", "logit_laplace"])
def test_patches_are_those_whose_pictures_come_back(output):
    model, images = fresh(output=output), smooth_pictures(3, 0)
    pictures = model.pictures(model.patches(images))
    np.testing.assert_allclose(pictures["images"], images, atol=1e-6)
    if output == "logit_laplace":
        assert not np.asarray(pictures["laplace"])[..., 3:].any()


def test_each_head_of_the_first_block_looks_at_a_neighbour():
    model = fresh(positions="sine_cosine", decoder_heads=4)
    images = smooth_pictures(40, 0)
    fit_towers(model, images)
    decoder, codes = model.decoder, model.quantizer.lookup(model.encode(images[:3]))
    block = decoder.blocks[0]
    x = block.attention_norm(decoder.positions(decoder.embedding(codes)))
    weights = keras.ops.convert_to_numpy(block.attention.attention_weights(x))
    side = SIZE // PATCH
    weights = weights.reshape(3, 4, side, side, side, side)
    for head, (down, right) in enumerate([(1, 0), (-1, 0), (0, 1), (0, -1)]):
        for row in range(max(0, -down), side - max(0, down)):
            for column in range(max(0, -right), side - max(0, right)):
                seen = weights[:, head, row, column, row + down, column + right]
                assert seen.min() > 0.8, (head, row, column)


def placed(codes, **fields):
    """A model whose codebook is placed on smooth pictures, and these."""
    images = smooth_pictures(200, 0)
    model = fresh(output="rgb", decoder_heads=4, num_codes=codes, **fields)
    patch_start.fit_encoder(model, images)
    vectors = patch_start.as_numpy(model.quantizer.normalize(model.vectors(images)))
    vectors = vectors.reshape(-1, 8)
    codes = spherical_kmeans(vectors, vectors[:: len(vectors) // codes][:codes], 5)
    model.quantizer.codebook.assign(codes)
    return model, images


def test_all_places_have_one_deviation_where_the_code_is_the_mean_one():
    model, images = placed(64, positions="sine_cosine")
    decoder = model.decoder
    patch_start.spread_bias(decoder.embedding, np.random.default_rng(0))
    codes = patch_start.as_numpy(model.quantizer.lookup(model.encode(images)))

    def deviations():
        mean = np.broadcast_to(codes.mean((0, 1)), (1, *codes.shape[1:]))
        return patch_start.as_numpy(decoder.positions(decoder.embedding(mean))).std(-1)

    assert np.ptp(deviations()) > 0.05
    attention_start.level_places(decoder, codes)
    assert np.ptp(deviations()) < 1e-4
    beside = patch_start.as_numpy(decoder.embedding(codes)).reshape(-1, 64).var(0)
    np.testing.assert_allclose(np.sqrt(beside.mean()), attention_start.CONTENT, 1e-3)


def test_a_codebook_of_which_one_code_is_in_use_is_no_mistake():
    images = smooth_pictures(20, 0)
    model = fresh(output="rgb", positions="sine_cosine", decoder_heads=4)
    patch_start.fit_encoder(model, images)
    codes = np.zeros((64, 8), "float32")
    codes[:, 1] = -1.0
    codes[0] = np.eye(8)[0]  # the pole, around which all patches lie
    model.quantizer.codebook.assign(codes)
    patch_start.fit_decoder(model, images)
    error = np.mean((come_back(model, images) - images) ** 2)
    assert error == pytest.approx(images.var((0, 1, 2)).mean(), rel=0.2)


def test_the_heads_of_the_second_block_look_at_like_codes_around(monkeypatch):
    """Where they look is recomputed: places and codes that are near, by products."""
    monkeypatch.setattr(attention_start, "LIKENESS", 0.5)  # so few places are there
    model, images = placed(64, positions="sine_cosine")
    patch_start.fit_decoder(model, images)
    decoder, codes = model.decoder, model.quantizer.lookup(model.encode(images[:20]))
    first, second = decoder.blocks[:2]
    x = first(decoder.positions(decoder.embedding(codes)))
    weights = second.attention.attention_weights(second.attention_norm(x))
    weights = keras.ops.convert_to_numpy(weights)

    book, codes = map(patch_start.as_numpy, (model.quantizer.lookup(range(64)), codes))
    apart = np.square(book[:, None] - book).sum(-1) + 9 * np.eye(64)
    steep = 2 * attention_start.LIKENESS / apart.min(0).mean()
    waves = sine_cosine(SIZE // PATCH, SIZE // PATCH, 8)  # 16 wide heads, 8 for codes
    squares = np.square(codes[:, :, None] - codes[:, None]).sum(-1)
    wanted = np.exp(waves @ waves.T - steep * squares / 2)
    wanted /= wanted.sum(-1, keepdims=True)
    common = np.minimum(weights, wanted[:, None]).sum(-1)
    assert common.mean() > 0.96
    blind = np.exp(waves @ waves.T)
    blind /= blind.sum(-1, keepdims=True)
    assert np.minimum(blind, wanted).sum(-1).mean() < 0.85


def test_the_nearest_other_code_is_that_of_all_of_them(monkeypatch):
    codes = np.random.default_rng(0).normal(size=(90, 5)).astype("float32")
    apart = np.linalg.norm(codes[:, None] - codes, axis=-1) ** 2
    np.fill_diagonal(apart, np.inf)
    nearest = attention_start.nearest_other(codes)
    assert nearest == pytest.approx(apart.min(1).mean(), rel=1e-5)
    monkeypatch.setattr(attention_start, "CODES", 30)
    nearest = attention_start.nearest_other(codes)
    assert nearest == pytest.approx(apart.min(1)[::3].mean(), rel=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"decoder_heads": 16}, {"decoder_layers": 1}, {"normalized_codes": False}],
    ids=lambda fields: next(iter(fields)),
)
def test_a_second_block_that_cannot_look_at_like_codes_stays_an_identity(fields):
    model = fresh(output="rgb", positions="sine_cosine", **fields)
    fit_towers(model, smooth_pictures(20, 0))
    assert np.asarray(model.decoder.blocks[0].attention.output_projection.kernel).any()
    for block in model.decoder.blocks[1:]:
        assert not np.asarray(block.attention.output_projection.kernel).any()


def test_the_decoder_smooths_codes_by_those_of_their_neighbours():
    """Least squares of a code and its four neighbours, recomputed, are nearly met."""
    asked, errors = smooth_pictures(50, 1), {}
    for positions in ("normal", "sine_cosine"):
        model, images = placed(16, positions=positions)
        patch_start.fit_decoder(model, images)
        errors[positions] = np.mean((come_back(model, asked) - asked) ** 2)

    def around(images):
        side = SIZE // PATCH
        codes = patch_start.as_numpy(model.quantizer.lookup(model.encode(images)))
        grid = np.pad(
            codes.reshape(-1, side, side, 8), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge"
        )
        steps = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
        near = [grid[:, 1 + y : 1 + y + side, 1 + x : 1 + x + side] for y, x in steps]
        near.append(np.ones_like(near[0][..., :1]))
        return np.concatenate(near, axis=-1).reshape(-1, 41)

    weights = np.linalg.lstsq(around(images), squares(images).reshape(-1, VALUES))[0]
    linear = np.mean(
        (around(asked) @ weights - squares(asked).reshape(-1, VALUES)) ** 2
    )
    assert errors["sine_cosine"] < 1.1 * linear
    assert errors["sine_cosine"] < 0.8 * errors["normal"]


def test_only_the_first_epoch_begins_so():
    tf = pytest.importorskip("tensorflow")
    images = smooth_pictures(20, 0)
    model = fresh()
    model.compile(keras.optimizers.Adam(use_ema=True))
    model.optimizer.build(model.trainable_variables)
    before = model.get_weights()

    def begin(epoch):
        for fit in (patch_start.fit_encoder, patch_start.fit_decoder):
            start = patch_start.PatchStart(
                model, fit, lambda: tf.data.Dataset.from_tensor_slices(images).batch(8)
            )
            start.set_model(model)
            start.on_epoch_begin(epoch)

    begin(1)
    for ours, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, was)
    begin(0)
    moved = [
        w
        for w, was in zip(model.weights, before, strict=True)
        if not np.array_equal(w, was)
    ]
    encoder, decoder = model.encoder, model.decoder
    assert {id(weight) for weight in moved} == {
        id(weight)
        for weight in (
            encoder.embedding.projection.bias,
            *encoder.head.weights,
            decoder.embedding.bias,
            *decoder.head.weights,
        )
    }
    averages = model.optimizer._model_variables_moving_average
    for weight, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(average, weight)
