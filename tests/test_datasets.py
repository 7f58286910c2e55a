"""Opening picture sets: order, values, forms and errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_parti import data
from keras_parti.data import datasets

FIXTURE = Path(__file__).parent / "fixtures" / "emoji"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The fixture's `full` config under a TFDS folder of its own."""
    root = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_PARTI_EMOJI", str(FIXTURE))
        builder = data.EmojiCaptions(config="full", data_dir=root)
        builder.download_and_prepare()
    return Path(builder.data_dir)


def keys(dataset):
    return [example["key"].decode() for example in dataset.as_numpy_iterator()]


def test_the_order_is_the_seeds(prepared):
    stored = keys(data.load(prepared, "train"))
    assert stored == keys(data.load(prepared, "train"))
    shuffled = keys(data.load(prepared, "train", shuffle_seed=7))
    assert shuffled == keys(data.load(prepared, "train", shuffle_seed=7))
    assert shuffled != keys(data.load(prepared, "train", shuffle_seed=8))
    assert shuffled != stored
    assert sorted(shuffled) == sorted(stored)


def test_repeating_goes_through_the_set_again_in_another_order(prepared):
    dataset = data.load(prepared, "train", shuffle_seed=7, repeat=True)
    twice = keys(dataset.take(96))
    assert sorted(twice[:48]) == sorted(twice[48:])
    assert twice[:48] != twice[48:]


@pytest.mark.parametrize("at_a_time", [2**30, 50_000])
def test_the_order_is_the_same_whenever_it_is_gone_through(
    prepared, monkeypatch, at_a_time
):
    """Also of a set of which a part is shuffled at a time."""
    monkeypatch.setattr(datasets, "SHUFFLED_BYTES", at_a_time)
    dataset = data.load(prepared, "train", shuffle_seed=7, repeat=True).take(100)
    assert keys(dataset) == keys(dataset)
    rest = data.load(prepared, "train", shuffle_seed=7, repeat=True, skipped=60)
    assert keys(rest.take(40)) == keys(dataset)[60:]


def test_a_prepared_set_is_known_by_name_and_version(prepared):
    identity = data.StoredSplit(prepared, "train", 5).identity
    assert identity == f"emoji_captions/full/{prepared.name}"


def crops_of(found):
    return [(e["key"], e["image"].tobytes()) for e in found.as_numpy_iterator()]


@pytest.mark.parametrize("skipped", [5, 48 + 5])
def test_skipped_examples_change_none_of_the_others(prepared, skipped):
    how = {"shuffle_seed": 7, "repeat": True, "image_size": 5, "augment": "tokenizer"}
    late = data.load(prepared, "train", skipped=skipped, **how)
    whole = data.load(prepared, "train", **how)
    assert crops_of(late.take(60)) == crops_of(whole.skip(skipped).take(60))


def test_skipped_examples_are_not_decoded(prepared, monkeypatch):
    decoded = []
    floats = datasets._floats

    def noted(image):
        tf.numpy_function(lambda _: decoded.append(1), [image], [])
        return floats(image)

    monkeypatch.setattr(datasets, "_floats", noted)
    assert len(list(data.load(prepared, "train", skipped=46))) == 2
    assert len(decoded) == 2


def test_batches_hold_the_single_examples(prepared):
    single = list(data.load(prepared, "train").as_numpy_iterator())
    batches = list(data.load(prepared, "train", batch_size=5))
    assert [len(batch["image"]) for batch in batches] == [5] * 9 + [3]
    assert batches[0]["image"].dtype == tf.float32
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(images, [example["image"] for example in single])
    for key in ("captions", "synonyms"):
        rows = [row for batch in batches for row in batch[key].to_list()]
        assert rows == [example[key].tolist() for example in single]


def test_pictures_are_the_stored_bytes_over_255(prepared):
    loaded = next(data.load(prepared, "validation").as_numpy_iterator())["image"]
    builder = tfds.builder_from_directory(prepared)
    stored = next(tfds.as_numpy(builder.as_dataset("validation")).__iter__())["image"]
    np.testing.assert_array_equal(loaded, stored.astype(np.float32) / np.float32(255))


def test_pictures_are_resized_to_the_size_asked_for(prepared):
    full = next(iter(data.load(prepared, "validation")))["image"]
    half = data.load(prepared, "validation", image_size=32)
    assert half.element_spec["image"].shape == (32, 32, 3)
    means = tf.nn.avg_pool2d(full[None], 8, 8, "VALID")[0]
    halved = tf.nn.avg_pool2d(next(iter(half))["image"][None], 4, 4, "VALID")[0]
    np.testing.assert_allclose(means, halved, atol=0.05)


def test_a_part_of_a_split_can_be_named(prepared):
    assert keys(data.load(prepared, "train[:3]")) == keys(
        data.load(prepared, "train").take(3)
    )


def test_a_name_is_prepared_on_first_use(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_PARTI_EMOJI", str(FIXTURE))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    assert len(keys(data.load("emoji_captions/small", "train"))) == 10
    monkeypatch.setenv("KERAS_PARTI_EMOJI", str(tmp_path / "gone"))
    assert len(keys(data.load("emoji_captions/small", "train"))) == 10
    assert (tmp_path / "emoji_captions" / "small").is_dir()


def test_an_unknown_split_lists_those_there_are(prepared):
    with pytest.raises(ValueError, match=r"'heldout_tone'.*Received: 'test'"):
        data.load(prepared, "test")


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ValueError, match=r"emoji_captions/small.*emoji_captions/full"):
        data.load("emoji_caption/small", "train")


def test_an_unknown_config_lists_those_there_are():
    with pytest.raises(ValueError, match=r"emoji_captions/small.*emoji_captions/full"):
        data.load("emoji_captions/medium", "train")


def test_a_folder_that_is_no_prepared_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prepared picture set"):
        data.load(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*gone"):
        data.load(str(tmp_path / "gone"), "train")


# --- the NumPy form -------------------------------------------------------------------


def test_a_set_comes_back_from_npz(prepared, tmp_path):
    dataset = data.load(prepared, "train")
    data.to_npz(dataset, tmp_path / "train.npz")
    loaded = data.load_npz(tmp_path / "train.npz")
    assert loaded["image"].dtype == np.uint8
    for i, example in enumerate(dataset.as_numpy_iterator()):
        np.testing.assert_array_equal(
            loaded["image"][i] / np.float32(255), example["image"]
        )
        assert loaded["tone"][i] == example["tone"].decode()
        for key in ("captions", "synonyms"):
            assert loaded[key][i] == [text.decode() for text in example[key]]


def test_npz_is_read_without_tensorflow(prepared, tmp_path):
    path = tmp_path / "a.npz"
    data.to_npz(data.load(prepared, "validation"), path)
    script = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_parti.data import load_npz\n"
        f"print(len(load_npz({str(path)!r})['captions']))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "6\n", run.stderr


def test_batched_examples_are_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match="single examples"):
        data.to_npz(data.load(prepared, "train", batch_size=5), tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


def test_a_damaged_npz_is_named(prepared, tmp_path):
    path = tmp_path / "a.npz"
    data.to_npz(data.load(prepared, "validation"), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        data.load_npz(path)
    with pytest.raises(FileNotFoundError, match=r"no file .*b\.npz"):
        data.load_npz(tmp_path / "b.npz")


def test_npz_never_unpickles(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.array([{}], object))
    with pytest.raises(ValueError, match="pickle"):
        data.load_npz(tmp_path / "a.npz")


def test_tfds_finds_the_builder_after_the_import(tmp_path):
    script = (
        "import sys, keras_parti.data\n"
        "assert 'tensorflow' not in sys.modules\n"
        "import tensorflow_datasets as tfds\n"
        f"builder = tfds.builder('emoji_captions/small', data_dir={str(tmp_path)!r})\n"
        "print(builder.info.full_name)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "emoji_captions/small/1.0.0\n", run.stderr
