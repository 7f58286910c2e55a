"""Runs of Parti: mixes of caches, averages, accumulation, and what a run tells."""

import argparse
import functools
import json

import keras
import numpy as np
import pytest
from killing import killed_in_epoch

tf = pytest.importorskip("tensorflow")

from keras_parti import data  # noqa: E402
from keras_parti.cli.training_parser import weighted_folder  # noqa: E402
from keras_parti.mesh import Layout, train_on_mesh  # noqa: E402
from keras_parti.models import Parti, TextEncoder  # noqa: E402
from keras_parti.text import Vocabulary, train_vocabulary  # noqa: E402
from keras_parti.training import parti, train_text_encoder  # noqa: E402
from keras_parti.training.preparation import warn_of_cut_captions  # noqa: E402

NAMES = ["cat", "dog", "tree", "bread", "apple", "fish", "star"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "vocabulary.model"
    train_vocabulary([f"{name} in toy style" for name in NAMES], path, size=290)
    return Vocabulary.from_file(path, 11)


def write_cache(
    folder,
    first_id,
    captions=1,
    tokenizer="a tokenizer",
    count=14,
    splits=("train", "validation"),
):
    """A cache whose pictures begin with `first_id`, the rest of ids counting up."""
    names = [NAMES[i % 7] for i in range(count)]
    examples = {
        "image": np.full((count, 1, 1, 3), first_id / 100, "float32"),
        "captions": [[f"{n} in toy style"] * captions for n in names],
        "name": names,
    }
    rest = np.arange(8, dtype="int32")[None]

    def encode(images):
        first = np.rint(100 * images[:, 0, 0, :1]).astype("int32")
        return np.concatenate([first, rest.repeat(len(images), 0)], 1)

    for split in splits:
        dataset = tf.data.Dataset.from_tensor_slices(examples)
        data.write_token_cache(folder, split, dataset, encode, tokenizer, 23, 9)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache"), 5)


def run(folder, cache, vocabulary, steps=6, **options):
    keras.utils.set_random_seed(4)
    model = Parti.from_preset("parti_tiny", decoder_layers=1)
    # Tracing a graph takes longer than six steps without one.
    model.compile = functools.partial(model.compile, run_eagerly=True)
    options = {"steps_per_epoch": 2, "warmup_steps": 1, "verbose": 0, **options}
    parti.train_parti(model, cache, vocabulary, folder, steps, 5, **options)
    return model


def same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Logs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def test_a_killed_run_with_all_its_options_ends_as_if_it_had_not_been(
    tmp_path, cache, vocabulary
):
    """Adafactor's 8 bits, averages, accumulated gradients, the paper's schedule."""
    options = {
        "optimizer": "adafactor",
        "schedule": "exponential",
        "average": 0.7,
        "accumulated_batches": 2,
    }
    logs = Logs()
    whole = run(tmp_path / "whole", cache, vocabulary, callbacks=[logs], **options)
    with killed_in_epoch(2):
        run(tmp_path / "cut", cache, vocabulary, **options)
    resumed = run(tmp_path / "cut", cache, vocabulary, **options)
    same_weights(resumed, whole)

    # What is kept to be used, and what is returned, are the averages.
    same_weights(Parti.load_dir(tmp_path / "cut" / "model"), whole)
    same_weights(run(tmp_path / "cut", cache, vocabulary, **options), whole)
    with np.load(tmp_path / "cut" / "checkpoints" / "000003.npz") as arrays:
        kept = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    assert {a.dtype.name for a in kept} >= {"int8", "float32"}
    averages = [a for a in kept if a.shape == whole.weights[0].shape]
    assert np.abs(averages[0] - averages[1]).max() > 1e-4
    np.testing.assert_allclose(averages[1], whole.get_weights()[0], atol=1e-7)

    # The last epoch's loss of validation is that of the averages.
    held_out = parti.batches(cache, "validation", vocabulary, 5)
    loss = whole.evaluate(held_out, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(logs.epochs[-1]["val_loss"], rel=1e-5)
    last = logs.epochs[-1]
    assert last["perplexity"] == pytest.approx(np.exp(last["loss"]))
    assert last["val_perplexity"] == pytest.approx(np.exp(last["val_loss"]))
    assert last["learning_rate"] == pytest.approx(1e-3 / 40)
    assert last["gradient_norm"] > 0
    assert last["tokens_per_second"] > 0
    assert last["mfu"] > 0
    assert 0 <= last["token_accuracy"] <= 1


def test_a_checkpoint_of_another_optimizer_is_not_run_over(tmp_path, cache, vocabulary):
    run(tmp_path, cache, vocabulary, steps=2)
    with pytest.raises(ValueError, match=r"No checkpoint in .*of another optimiser"):
        run(tmp_path, cache, vocabulary, steps=4, optimizer="adafactor")
    assert (tmp_path / "checkpoints" / "000001.npz").exists()


def test_a_field_that_came_later_keeps_no_run_from_going_on(
    tmp_path, cache, vocabulary
):
    run(tmp_path, cache, vocabulary, steps=2)
    begun = json.loads((tmp_path / "config.json").read_text())
    del begun["image_mixing_rate"]
    (tmp_path / "config.json").write_text(json.dumps(begun))
    run(tmp_path, cache, vocabulary, steps=2)


def drawn(dataset, count):
    pairs = list(dataset.take(count).as_numpy_iterator())
    firsts = np.concatenate([x["image_ids"][:, 0] for x, _ in pairs])
    return firsts, np.concatenate([x["text_ids"] for x, _ in pairs])


def test_caches_are_mixed_by_their_weights(tmp_path, vocabulary):
    mix = {write_cache(tmp_path / str(i), i): w for i, w in ((2, 0.7), (9, 2.1))}
    firsts, _ = drawn(parti.batches(mix, "train", vocabulary, 10, seed=1), 100)
    assert set(firsts) == {2, 9}
    # Five standard deviations of 1,000 draws.
    assert abs((firsts == 2).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 1000)
    firsts, _ = drawn(parti.batches(mix, "validation", vocabulary, 10), -1)
    assert firsts.tolist() == [2] * 14 + [9] * 14


def test_left_out_batches_are_the_first_ones(tmp_path, cache, vocabulary):
    mix = {cache: 0.6, write_cache(tmp_path, 9): 0.4}
    options = {"seed": 3, "label_rate": 0.5}
    whole = drawn(parti.batches(mix, "train", vocabulary, 5, **options), 11)
    rest = drawn(parti.batches(mix, "train", vocabulary, 5, skipped=7, **options), 4)
    for a, b in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(a[35:], b)


def test_a_mix_is_the_same_whenever_it_is_gone_through(tmp_path, cache, vocabulary):
    mix = {cache: 0.6, write_cache(tmp_path, 9): 0.4}
    found = []
    for draw in (1, 2):
        keras.utils.set_random_seed(draw)
        dataset = parti.batches(mix, "train", vocabulary, 5, seed=3)
        found += [drawn(dataset, 9)[0].tolist(), drawn(dataset, 9)[0].tolist()]
    assert len(set(map(tuple, found))) == 1


@pytest.mark.parametrize(("captions", "rate", "share"), [(1, 0.3, 0.3), (0, 0.0, 1.0)])
def test_labels_take_the_place_of_captions(tmp_path, vocabulary, captions, rate, share):
    folder = write_cache(tmp_path, 5, captions)
    dataset = parti.batches(folder, "train", vocabulary, 10, 1, label_rate=rate)
    _, texts = drawn(dataset, 100)
    labels = {tuple(row) for row in vocabulary.encode(NAMES)}
    found = np.mean([tuple(row) in labels for row in texts])
    assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / 1000)


def test_bad_mixes_are_refused(tmp_path, cache, vocabulary):
    other = write_cache(tmp_path / "other", 5, tokenizer="another")
    with pytest.raises(ValueError, match=r"of one tokenizer.*another"):
        parti.batches({cache: 1, other: 1}, "train", vocabulary, 5)
    with pytest.raises(ValueError, match=r"must be positive. Received: 0"):
        parti.batches({cache: 0}, "train", vocabulary, 5)


def test_a_run_knows_whose_ids_it_learns(tmp_path, cache, vocabulary):
    model = run(tmp_path / "run", cache, vocabulary, steps=2)
    assert model.config.tokenizer == "a tokenizer"
    assert model.config.vocabulary == vocabulary.fingerprint
    assert Parti.load_dir(tmp_path / "run" / "model").config == model.config
    other = write_cache(tmp_path / "cache", 6, tokenizer="another")
    message = "learned ids of tokenizer a tokenizer. Received: those of another"
    with pytest.raises(ValueError, match=message):
        parti.train_parti(model, other, vocabulary, tmp_path / "finetuned")
    with pytest.raises(ValueError, match="holds a run with tokenizer='a tokenizer'"):
        run(tmp_path / "run", other, vocabulary, steps=4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_codes": 29}, "`num_codes` of the model must be 23, to fit .*=29"),
        ({"num_tokens": 16}, "`num_tokens` of the model must be 9, to fit .*=16"),
        ({"text_length": 13}, "`text_length` of the model must be 11, to fit the v"),
        ({"text_vocab_size": 270}, r"`text_vocab_size` of the model must be at least"),
    ],
)
def test_a_model_of_other_sizes_is_refused(
    tmp_path, cache, vocabulary, fields, message
):
    """By each of those that learn from token caches, before anything is written."""
    folder, model = tmp_path / "run", Parti.from_preset("parti_tiny", **fields)
    with pytest.raises(ValueError, match=message):
        parti.train_parti(model, cache, vocabulary, folder)
    with pytest.raises(ValueError, match=message):
        train_on_mesh(model.config, Layout(), {cache: 1.0}, vocabulary, folder)
    encoder = TextEncoder.from_preset("parti_tiny", **fields)
    with pytest.raises(ValueError, match=message):
        train_text_encoder(encoder, cache, vocabulary, folder)
    assert not folder.exists()


def test_matrices_decay_and_vectors_do_not():
    model = Parti.from_preset("parti_tiny")
    optimizer = parti.optimizer_of(model, 1e-3)
    optimizer.build(model.trainable_variables)
    for variable in model.trainable_variables:
        decays = optimizer._use_weight_decay(variable)
        assert decays == (variable.name in ("kernel", "embeddings", "positions"))


def test_captions_that_are_cut_are_told(caplog, cache, vocabulary):
    captions = [f"{name} in toy style" for name in NAMES * 2]
    lengths = vocabulary.encode_report(captions)["num_tokens"]
    # All end in the same words, which is all that is cut off here.
    short = Vocabulary(vocabulary.model_bytes, int(lengths.max()) - 1)
    cut = int((lengths == lengths.max()).sum())
    config = Parti.preset_config("parti_tiny", text_length=short.length)
    parti.check_fits(config, cache, short)
    assert (
        f"{cut} of 14 captions are cut to {short.length} ids; of 7 different ones 7"
        in caplog.text
    )
    assert f"`text_length` of {lengths.max()} would" in caplog.text
    caplog.clear()
    whole = Vocabulary(vocabulary.model_bytes, int(lengths.max()))
    config = Parti.preset_config("parti_tiny", text_length=whole.length)
    parti.check_fits(config, cache, whole)
    assert not caplog.records


def test_texts_that_become_one_are_told(caplog, vocabulary):
    """Upper and lower case are one before anything is cut, and count as one text."""
    captions = [f"in toy style {name}" for name in (*NAMES, "CAT")]
    short = Vocabulary(vocabulary.model_bytes, 4)
    warn_of_cut_captions(captions, short, "pictures")
    assert "pictures: 8 of 8 captions are cut to 4 ids" in caplog.text
    assert "of 7 different ones 1 are left" in caplog.text


def test_bad_options_are_refused(tmp_path, cache, vocabulary, two_replicas):
    model = Parti.from_preset("parti_tiny")
    with pytest.raises(ValueError, match="must divide `steps_per_epoch`, 100"):
        parti.train_parti(model, cache, vocabulary, tmp_path, accumulated_batches=3)
    with pytest.raises(ValueError, match="`schedule` must be one of"):
        parti.train_parti(model, cache, vocabulary, tmp_path, schedule="linear")
    with pytest.raises(ValueError, match="`optimizer` must be one of"):
        parti.compile_parti(model, 1e-3, optimizer="sgd")
    with two_replicas.scope(), pytest.raises(ValueError, match="with 2 replicas"):
        parti.compile_parti(model, 1e-3, accumulated_batches=2)


def test_a_cache_has_its_weight_behind_a_colon(tmp_path):
    odd = tmp_path / "a:0.5"
    odd.mkdir()
    assert weighted_folder(f"{tmp_path}:0.7") == (tmp_path, 0.7)
    assert weighted_folder(str(tmp_path)) == (tmp_path, 1.0)
    assert weighted_folder(str(odd)) == (odd, 1.0)
    for bad in (f"{tmp_path}:0", f"{tmp_path}:x", f"{tmp_path}/none:0.5"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"must be|no folder"):
            weighted_folder(bad)
