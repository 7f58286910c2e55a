"""Training CoCa: one batch on all replicas, what is drawn, learning, resuming."""

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from PIL import Image  # noqa: E402

from keras_parti.data.augmentation import shift_and_flip  # noqa: E402
from keras_parti.losses import Contrastive, TextCrossEntropy  # noqa: E402
from keras_parti.metrics import recall  # noqa: E402
from keras_parti.models import CoCa, ViTVQGAN  # noqa: E402
from keras_parti.text import Vocabulary, train_vocabulary  # noqa: E402
from keras_parti.training import coca  # noqa: E402
from keras_parti.training.coca import (  # noqa: E402
    batches,
    compile_coca,
    train_coca,
)
from keras_parti.training.contrastive import GlobalContrastive  # noqa: E402

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "v.model"
    train_vocabulary([f"{c} thing in toy style" for c in COLOURS], path, 290)
    return Vocabulary.from_file(path, 11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of plain pictures, each with a caption."""
    folder = tmp_path_factory.mktemp("pictures")
    for colour, rgb in COLOURS.items():
        for number in range(2):
            pixels = np.full((12, 12, 3), rgb, "uint8") // (number + 1)
            Image.fromarray(pixels).save(folder / f"{colour}{number}.png")
            text = folder / f"{colour}{number}.txt"
            text.write_text(f"{colour} thing in toy style\n")
    return folder


def pairs(count):
    rng = np.random.default_rng(3)
    ids = np.zeros((count, 11), "int32")
    ids[:, :6] = rng.integers(4, 300, (count, 6))
    ids[:, 0], ids[:, 6] = 2, 3
    return {"images": rng.random((count, 12, 12, 3), "float32"), "text_ids": ids}


def test_a_text_chooses_among_the_pictures_of_all_replicas(two_replicas):
    """With SGD, since Adam hides a wrong scale of the gradients."""
    vectors = np.sin(np.arange(8 * 2 * 7, dtype="float32")).reshape(8, 2, 7)

    def trained(strategy, loss):
        with strategy.scope():
            dense = keras.layers.Dense(5, kernel_initializer="ones")
            model = keras.Sequential([keras.Input((2, 7)), dense])
            dense.kernel.assign(np.cos(np.arange(35.0)).reshape(7, 5))
            model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=False)
        history = model.fit(vectors, vectors, 8, 3, shuffle=False, verbose=0)
        return dense.kernel.numpy(), history.history["loss"]

    one = trained(tf.distribute.OneDeviceStrategy("/cpu:0"), Contrastive())
    two = trained(two_replicas, GlobalContrastive())
    np.testing.assert_allclose(two[1], one[1], rtol=1e-5)
    np.testing.assert_allclose(two[0], one[0], atol=1e-5)
    apart = trained(two_replicas, Contrastive())
    assert np.abs(apart[0] - one[0]).max() > 1e-2  # four to choose among, not eight


def test_it_is_the_loss_that_coca_is_trained_with():
    model = CoCa.from_preset("coca_tiny")
    compile_coca(model, 1e-3)
    assert isinstance(model.loss["embeddings"], GlobalContrastive)


def test_the_weights_of_the_losses_are_the_papers():
    model = CoCa.from_preset("coca_tiny")
    compile_coca(model, 1e-3)
    inputs = pairs(5)
    targets = {"embeddings": np.zeros(5), "tokens": inputs["text_ids"][:, 1:]}
    found = model.test_on_batch(inputs, targets, return_dict=True)
    outputs = model(inputs)
    logits = np.array(
        outputs["embeddings"][:, 0] @ tf.transpose(outputs["embeddings"][:, 1])
    )
    own = np.arange(5)
    contrastive = sum(
        (np.log(np.exp(x).sum(1)) - x[own, own]).mean() for x in (logits, logits.T)
    )
    caption = TextCrossEntropy()(targets["tokens"], outputs["tokens"])
    expected = 1.0 * contrastive + 2.0 * float(caption)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)


def test_pictures_are_moved_and_mirrored():
    image = np.arange(5 * 7 * 3, dtype="float32").reshape(5, 7, 3)
    still = shift_and_flip(image, 0, 0.0, (1, 2))
    np.testing.assert_array_equal(still, image)
    mirrored = shift_and_flip(image, 0, 1.0, (1, 2))
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    wide = np.pad(image, ((2, 2), (2, 2), (0, 0)), "symmetric")
    windows = {wide[y : y + 5, x : x + 7].tobytes() for y in range(5) for x in range(5)}
    found = {shift_and_flip(image, 2, 0.0, (1, i)).numpy().tobytes() for i in range(99)}
    assert found <= windows
    assert len(found) > 15


def test_recall_counts_ties_as_misses():
    assert float(recall(np.eye(7), 1)) == 1.0
    assert float(recall(np.zeros((7, 7)), 6)) == 0.0
    assert float(recall(-np.eye(7), 6)) == 0.0
    assert float(recall(np.roll(np.eye(7), 1, axis=1), 2)) == 0.0


def test_a_batch_begins_with_reconstructions(folder, vocabulary):
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny", output="rgb")
    options = {"shift": 0, "flip_rate": 0.0}
    plain, _ = next(iter(batches(folder, vocabulary, 4, 12, **options)))
    some, targets = next(
        iter(
            batches(
                folder,
                vocabulary,
                4,
                12,
                tokenizer=tokenizer,
                reconstructed=0.25,
                **options,
            )
        )
    )
    rebuilt = tokenizer.decode(tokenizer.encode(plain["images"][:1]))
    np.testing.assert_allclose(some["images"][:1], rebuilt, atol=1e-5)
    np.testing.assert_array_equal(some["images"][1:], plain["images"][1:])
    np.testing.assert_array_equal(targets["tokens"], some["text_ids"][:, 1:])


def test_pictures_of_one_name_come_together(tmp_path, vocabulary):
    """Of six pictures of red and one each of two others, two of a name at most."""
    for number, colour in enumerate(["red"] * 6 + ["green", "blue"]):
        pixels = np.abs(np.full((12, 12, 3), COLOURS[colour], int) - number)
        path = tmp_path / "train" / f"style {number}" / f"{colour}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels.astype("uint8")).save(path)
        path.with_suffix(".txt").write_text(f"{colour} thing in style {number}")
    (tmp_path / "validation").mkdir()
    Image.fromarray(pixels.astype("uint8")).save(tmp_path / "validation" / "red.png")
    stream = batches(
        str(tmp_path), vocabulary, 4, 12, shift=0, flip_rate=0.0, together=2
    )
    # A pass is one green, one blue, and two of red next to each other.
    passes = [np.rint(b["images"][:, 0, 0] * 255) for b, _ in stream.take(12)]
    reds = [tuple(p[:, 0][p[:, 0] > 100]) for p in passes]
    assert all(len(pair) == 2 and len(set(pair)) == 2 for pair in reds)
    assert len({red for pair in reds for red in pair}) == 6
    assert len(set(reds)) > 3


@pytest.mark.parametrize("together", [1, 2])
def test_a_resumed_order_is_that_of_an_uninterrupted_run(folder, vocabulary, together):
    sets = {str(folder): 2.0}
    options = {"seed": 7, "together": together}
    whole = list(batches(sets, vocabulary, 2, 12, **options).take(4))
    rest = list(batches(sets, vocabulary, 2, 12, skipped=2, **options).take(2))
    for (ours, _), (theirs, _) in zip(whole[2:], rest, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_it_learns_and_goes_on(folder, vocabulary, tmp_path):
    logs = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, values: logs.append(dict(values))
    )

    def run(steps):
        model = CoCa.from_preset("coca_tiny")
        train_coca(
            model,
            str(folder),
            vocabulary,
            tmp_path / "run",
            steps,
            batch_size=6,
            learning_rate=1e-2,
            warmup_steps=2,
            shift=0,
            average=0.5,
            steps_per_epoch=20,
            callbacks=[note],
            verbose=0,
        )
        return model

    run(20)
    model = run(40)
    assert len(logs) == 2
    assert logs[1]["loss"] < logs[0]["loss"]
    images = np.zeros((3, 12, 12, 3), "float32")
    for i, rgb in enumerate(COLOURS.values()):
        images[i] = np.array(rgb) / 255
    ids = vocabulary.encode([f"{colour} thing in toy style" for colour in COLOURS])
    scores = (
        np.array(model.image_embedding(images)) @ np.array(model.text_embedding(ids)).T
    )
    np.testing.assert_array_equal(scores.argmax(0), range(3))
    again = CoCa.load_dir(tmp_path / "run" / "model")
    np.testing.assert_allclose(again.score(images, ids), np.diag(scores), atol=1e-5)


def test_captions_that_are_cut_are_told(folder, vocabulary, caplog):
    whole = Vocabulary(vocabulary.model_bytes, 40)
    _, _, right = coca.held_out(str(folder), "train", whole, 12)
    assert right.sum() == 2**2 + 2**2 + 1  # five pictures of three captions
    assert not caplog.records
    coca.held_out(str(folder), "train", Vocabulary(vocabulary.model_bytes, 5), 12)
    assert "train: 5 of 5 captions are cut to 5 ids" in caplog.text


def test_what_does_not_fit_is_said(folder, vocabulary, tmp_path):
    model = CoCa.from_preset("coca_tiny", text_length=13)
    with pytest.raises(ValueError, match="`text_length` of the CoCa must be 11"):
        train_coca(model, str(folder), vocabulary, tmp_path)
    model = CoCa.from_preset("coca_tiny", text_vocab_size=270)
    with pytest.raises(ValueError, match="`text_vocab_size` of the CoCa must be at"):
        train_coca(model, str(folder), vocabulary, tmp_path)
    with pytest.raises(ValueError, match="weight of a set must be positive"):
        batches({str(folder): 0.0}, vocabulary, 2, 12)
    with pytest.raises(ValueError, match="`together` must be at least 1"):
        batches(str(folder), vocabulary, 2, 12, together=0)


@pytest.mark.parametrize("together", [1, 2])
def test_of_a_large_set_no_more_is_held_than_fits(vocabulary, monkeypatch, together):
    """10,000 pictures of 7 names; 31 at a time are looked at."""
    read = []

    def load(name, split, image_size, shuffle_seed=None, repeat=False, skipped=0):
        def example(index):
            tf.py_function(lambda i: read.append(int(i)), [index], [])
            name = tf.strings.as_string(index % 7)
            shape = (image_size, image_size, 3)
            return {
                "image": tf.fill(shape, tf.cast(index % 7, tf.float32) / 255.0),
                "captions": name[None],
                "name": name,
            }

        return tf.data.Dataset.range(10**4).map(example)

    monkeypatch.setattr(coca, "IN_MEMORY", 31 * 3 * 12**2)
    monkeypatch.setattr(coca.data, "load", load)
    monkeypatch.setattr(coca.data, "splits", lambda name: {"train": 10**4})
    stream = batches(
        "all", vocabulary, 6, 12, shift=0, flip_rate=0.0, together=together
    )
    found = [np.rint(255 * b["images"][:, 0, 0, 0]) for b, _ in stream.take(3)]
    if together == 2:
        assert all((batch[::2] == batch[1::2]).all() for batch in found)
        assert len(set(np.concatenate(found))) == 7
    # Three batches and what is fetched ahead of them.
    assert len(read) < 6 * 31
