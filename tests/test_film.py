"""TensorBoard shows the same prompts as they are learnt, and true losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_parti import data
from keras_parti.models import TextToImage
from keras_parti.training.film import Film, held_out_batch
from keras_parti.training.parti import compile_parti

PROMPTS = ["red fox in google style", "green pear"]


def logged(folder):
    """All that was logged: {tag: [(step, value)]}, images as (height, width)."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                tensor = (
                    tf.make_ndarray(value.tensor) if value.HasField("tensor") else 0
                )
                found.setdefault(value.tag, []).append((event.step, tensor))
    return found


@pytest.fixture(scope="module")
def film(small_chain, tmp_path_factory):
    """The log of three epochs, of which the first and the third are shown."""
    parti, folder = small_chain.parti, tmp_path_factory.mktemp("logs")
    kept = parti.get_weights()
    config, random = parti.config, np.random.default_rng(0)
    text_ids = small_chain.vocabulary.encode([PROMPTS[0]] * 4 + [PROMPTS[1]] * 3)
    ids = random.integers(0, config.num_codes, (7, config.num_tokens)).astype("int32")
    held_out = {"text_ids": text_ids, "image_ids": ids, "categories": list("aabbbab")}
    callback = Film(
        small_chain.tokenizer,
        small_chain.vocabulary,
        PROMPTS,
        folder,
        held_out,
        guidance_scales=(1.0, 3.0),
        every=2,
        seed=5,
    )
    inputs = {"text_ids": text_ids, "image_ids": ids}
    compile_parti(parti, 1e-3)
    parti.fit(inputs, ids, batch_size=7, epochs=3, verbose=0, callbacks=[callback])
    model = keras.ops.convert_to_numpy(parti(inputs))
    fresh = TextToImage(small_chain.tokenizer, parti, small_chain.vocabulary)
    drawn = [
        c.generate(PROMPTS, seed=5, num_samples=1)["ids"]
        for c in (callback.chain, fresh)
    ]
    assert len(list(folder.glob("events*"))) == 1, "TensorBoard wants one file a run"
    yield logged(folder), held_out, model, drawn
    parti.set_weights(kept)


def test_pictures_and_attention_are_shown_every_so_many_epochs(film):
    found = film[0]
    for tag in ("film", "attention", "loss_by_position"):
        assert [step for step, _ in found[tag]] == [0, 2]
        width, height, content = found[tag][-1][1][:3]
        assert int(width) > 100
        assert int(height) > 100
        assert content.startswith(b"\x89PNG")


def test_what_is_drawn_is_drawn_with_the_weights_of_the_moment(film):
    np.testing.assert_array_equal(*film[3])


def test_losses_by_position_and_category_are_means_of_the_cross_entropy(film):
    found, held_out, logits, _ = film
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    ids = held_out["image_ids"]
    losses = -np.take_along_axis(logs, ids[..., None], axis=-1)[..., 0]
    side = int(ids.shape[1] ** 0.5)
    last = {tag: values[-1][1] for tag, values in found.items()}
    assert last["loss_by_position/first_row"] == pytest.approx(
        losses[:, :side].mean(), rel=1e-4
    )
    assert last["loss_by_position/rest"] == pytest.approx(
        losses[:, side:].mean(), rel=1e-4
    )
    of_a = np.array(held_out["categories"]) == "a"
    assert last["loss_by_category/a"] == pytest.approx(losses[of_a].mean(), rel=1e-4)
    assert last["loss_by_category/b"] == pytest.approx(losses[~of_a].mean(), rel=1e-4)


def test_held_out_examples_come_with_their_first_caption_and_category(
    small_chain, tmp_path
):
    examples = {
        "image": np.zeros((3, 1, 1, 3), "float32"),
        "captions": tf.ragged.constant([["red fox", "it"], ["pear"], []]),
        "name": ["fox", "pear", "apple"],
        "category": ["animals", "food", ""],
    }
    ids = np.arange(9, dtype="int32")
    for split in ("train", "validation"):
        data.write_token_cache(
            tmp_path / "cache",
            split,
            tf.data.Dataset.from_tensor_slices(examples),
            lambda images: np.tile(ids, (len(images), 1)),
            "a tokenizer",
            23,
            9,
        )
    found = held_out_batch(tmp_path / "cache", small_chain.vocabulary)
    expected = small_chain.vocabulary.encode(["red fox", "pear", "apple"])
    assert sorted(map(tuple, found["text_ids"])) == sorted(map(tuple, expected))
    np.testing.assert_array_equal(found["image_ids"], np.tile(ids, (3, 1)))
    assert sorted(found["categories"]) == ["animals", "food", "none"]


def test_a_film_of_nothing_is_refused(small_chain, tmp_path):
    parts = small_chain.tokenizer, small_chain.vocabulary
    with pytest.raises(ValueError, match="must not be empty"):
        Film(*parts, [], tmp_path)
    with pytest.raises(ValueError, match="must not be empty"):
        Film(*parts, ["a"], tmp_path, guidance_scales=())
