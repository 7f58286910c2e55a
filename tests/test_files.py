"""A file is whole or as it was before, whatever ends its writing."""

import h5py
import keras
import pytest
from full_disk import files_of_at_most

from keras_parti.files import check_room, written_whole
from keras_parti.models import WDSR


@pytest.mark.parametrize("shared", [False, True])
def test_what_fails_within_leaves_what_was_there(tmp_path, shared):
    path = tmp_path / "figures.json"
    with written_whole(path, shared) as part:
        part.write_text("old")
        assert part.suffix == path.suffix
        assert not path.exists()
    with pytest.raises(KeyError):
        fail(path, shared)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def fail(path, shared):
    with written_whole(path, shared) as part:
        part.write_text("new")
        raise KeyError


def test_room_is_known_before_it_is_needed(tmp_path):
    with files_of_at_most(7_919):
        check_room(tmp_path / "small", 7_919)
        with pytest.raises(OSError, match="large"):
            check_room(tmp_path / "large", 7_920)
    assert (tmp_path / "small").stat().st_size == 0


def test_weights_that_do_not_fit_leave_those_before(tmp_path):
    before = WDSR.from_preset("wdsr_tiny")
    before.save_dir(tmp_path)
    size = (tmp_path / "model.weights.h5").stat().st_size
    with files_of_at_most(size - 1), pytest.raises(OSError, match="large"):
        WDSR.from_preset("wdsr_tiny").save_dir(tmp_path)
    assert WDSR.load_dir(tmp_path).fingerprint() == before.fingerprint()
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.weights.h5",
    }


def test_a_config_that_does_not_fit_leaves_that_before(tmp_path):
    before = WDSR.from_preset("wdsr_tiny")
    before.save_dir(tmp_path)
    with files_of_at_most(7), pytest.raises(OSError, match="large"):
        WDSR.from_preset("wdsr_tiny", num_blocks=3).save_dir(tmp_path)
    assert WDSR.load_dir(tmp_path).fingerprint() == before.fingerprint()


def test_a_small_file_that_unfolds_is_not_weights(tmp_path):
    """A terabyte of zeros that nobody wrote is a kilobyte on the disk."""
    model = WDSR.from_preset("wdsr_tiny")
    model.save_dir(tmp_path)
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/bomb/vars/0", (2**38,), "float32", chunks=(2**10,))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"not of this model.*1,099,511,\d+,\d+ bytes"):
        WDSR.load_dir(tmp_path)


def test_weights_saved_with_their_optimizer_are_read(tmp_path):
    model = WDSR.from_preset("wdsr_tiny")
    model.compile(keras.optimizers.Adam(use_ema=True, gradient_accumulation_steps=2))
    model.optimizer.build(model.trainable_variables)
    model.save_dir(tmp_path)
    assert WDSR.load_dir(tmp_path).fingerprint() == model.fingerprint()
