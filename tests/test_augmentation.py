"""Random crops follow DALL-E's two listings, and their seeds."""

import numpy as np
import pytest
import tensorflow as tf

from keras_parti.data import augmentation

SIZE = 32
# Those that leave every pixel its colour.
UNCOLORED = [kind for kind in augmentation.CROPS if kind != "recolored"]


def ramps(height, width):
    """Red says the row, green the column, from 0 at one edge to 1 at the other."""
    rows, columns = np.mgrid[0:height, 0:width].astype("float32")
    blue = np.zeros_like(rows)
    return np.stack([rows / (height - 1), columns / (width - 1), blue], axis=-1)


def crops(kind, image, count, size=SIZE):
    dataset = tf.data.Dataset.from_tensors({"image": image}).repeat(count)
    dataset = augmentation.augment(dataset, kind, size, seed=3)
    return np.stack([e["image"] for e in dataset.as_numpy_iterator()])


def steps(pictures, channel, axis, length):
    """How much of the picture a pixel of the crop spans, in pixels of the picture."""
    spans = np.diff(pictures[..., channel], axis=axis).mean(axis=(1, 2))
    return spans * (length - 1)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("tokenizer", 36, 48), ("transformer", 32, 36)]
)
def test_the_picture_is_resized_to_every_side_of_the_listing(kind, low, high):
    found = crops(kind, ramps(97, 131), 400)
    # The full shorter side, 97 pixels, becomes `side`: a pixel spans 97 / side.
    sides = np.rint(97 / steps(found, 0, 1, 97)).astype(int)
    values, counts = np.unique(sides, return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    expected = 400 / len(values)
    assert abs(counts - expected).max() < 5 * expected**0.5  # uniform


@pytest.mark.parametrize("kind", UNCOLORED)
def test_crops_are_pictures_in_steps_of_8_bits(kind):
    found = crops(kind, ramps(41, 53), 20)
    assert found.shape == (20, SIZE, SIZE, 3)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found * 255, np.rint(found * 255), atol=1e-4)


def test_a_picture_no_larger_than_the_result_is_only_mirrored():
    image = np.rint(ramps(SIZE, SIZE) * 255) / 255
    straight, mirrored = 0, 0
    for crop in crops("tokenizer", image, 200):
        straight += np.allclose(crop, image, atol=1e-6)
        mirrored += np.allclose(crop, image[:, ::-1], atol=1e-6)
    assert straight + mirrored == 200
    assert 70 < mirrored < 130


def test_text_is_never_mirrored():
    found = crops("transformer", ramps(60, 80), 100)
    assert (steps(found, 1, 2, 80) > 0).all()


def test_a_tokenizer_sees_all_of_the_longer_side_and_a_transformer_its_middle():
    wide = ramps(40, 200)
    columns = crops("tokenizer", wide, 300)[..., 1] * 199
    assert columns.min() < 5
    assert columns.max() > 194
    columns = crops("transformer", wide, 300)[..., 1] * 199
    # The slack of 160 pixels: offsets 60 to 99, of a square of 40.
    assert 59 <= columns.min() < 66
    assert 133 < columns.max() <= 139


@pytest.mark.parametrize("kind", augmentation.CROPS)
def test_equal_seeds_give_equal_crops_and_others_do_not(kind):
    image, crop = ramps(61, 47), augmentation.CROPS[kind]
    one = crop(image, SIZE, [5, 7])
    np.testing.assert_array_equal(one, crop(image, SIZE, [5, 7]))
    assert np.abs(one - crop(image, SIZE, [5, 8])).max() > 0.01
    assert np.abs(one - crop(image, SIZE, [6, 7])).max() > 0.01


def test_skipping_changes_no_other_crop():
    images = tf.data.Dataset.from_tensors({"image": ramps(61, 47)}).repeat(9)
    dataset = augmentation.augment(images, "tokenizer", SIZE, seed=3)
    whole = [e["image"] for e in dataset.as_numpy_iterator()]
    rest = [e["image"] for e in dataset.skip(5).as_numpy_iterator()]
    np.testing.assert_array_equal(whole[5:], rest)
    assert np.abs(whole[0] - whole[1]).max() > 0.01


@pytest.mark.parametrize("kind", UNCOLORED)
@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (50, 3), (31, 31)])
def test_small_pictures_are_enlarged(kind, shape):
    image = np.full((*shape, 3), 0.6, "float32")
    np.testing.assert_allclose(crops(kind, image, 3), 0.6, atol=1e-6)


def test_a_recolored_crop_is_that_of_the_listing_in_other_colours():
    rng = np.random.default_rng(0)
    # Far from black and white, so that nothing is clipped.
    image = rng.uniform(0.45, 0.55, (61, 47, 3)).astype("float32")
    orders = []
    for number in range(60):
        own = tf.unstack(tf.random.split(tf.constant([3, number]), 2))
        crop = augmentation.tokenizer_crop(image, SIZE, own[0]).numpy().reshape(-1, 3)
        found = augmentation.recolored_crop(image, SIZE, [3, number]).numpy()
        # One affine map of the three channels makes all pixels of the one the other's.
        inputs = np.concatenate([crop, np.ones((len(crop), 1))], axis=1)
        linear, *_ = np.linalg.lstsq(inputs, found.reshape(-1, 3), rcond=None)
        np.testing.assert_allclose(inputs @ linear, found.reshape(-1, 3), atol=1e-5)
        matrix, brightness = linear[:3], linear[3]
        # A column sums to the gain of its channel, whatever order and saturation.
        gains = matrix.sum(axis=0)
        assert (gains > 0.799).all()
        assert (gains < 1.201).all()
        assert abs(brightness[0]) < 0.151
        np.testing.assert_allclose(brightness, brightness[0], atol=1e-4)
        scaled = matrix / gains  # s · order + (1 - s) / 3
        saturation = scaled.max(axis=0) - scaled.min(axis=0)
        low, high = saturation.min(), saturation.max()
        assert 0.299 < low <= high < 1.501
        np.testing.assert_allclose(low, high, atol=1e-3)
        orders.append(tuple(scaled.argmax(axis=0)))
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    # Half are left in order, and a sixth of the others fall into it.
    assert 22 < sum(order == (0, 1, 2) for order in orders) < 48
    assert len(set(orders)) == 6


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match=r"\['tokenizer', .*'upsampler'\].*'best'"):
        crops("best", ramps(5, 5), 1)
