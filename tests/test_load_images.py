"""Pictures to be measured are those of the set, and lie in a file until they are."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow")

from keras_parti.evaluation import Pictures, load_images
from keras_parti.evaluation.pictures import in_a_file, load_splits


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 13, 3), "uint8")
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / f"{number:02d}.png")
    return tmp_path, pixels


def test_pictures_are_read_into_a_file_and_from_it(folder):
    path, pixels = folder
    images = load_images(str(path), "train", 13)
    assert isinstance(images, np.memmap)  # what is not used need not be in memory
    assert not images.flags.writeable
    assert np.asarray(images).base is images
    held = {each.tobytes() for each in images}
    assert len(held) == len(images)
    assert held < {each.tobytes() for each in pixels}  # some are for validation
    large = load_images(str(path), "train", 26)
    assert large.shape == (len(images), 26, 26, 3)


def test_captioned_pictures_lie_in_files_split_by_split_and_joined(folder):
    path, pixels = folder
    splits = load_splits(str(path), 13)
    whole = Pictures.join(splits.values())
    for part in (*splits.values(), whole):
        assert isinstance(np.asarray(part.images).base, np.memmap)
    parts = np.concatenate([part.images for part in splits.values()])
    np.testing.assert_array_equal(whole.images, parts)
    assert {each.tobytes() for each in parts} == {each.tobytes() for each in pixels}


def test_pictures_of_several_sizes_are_no_array():
    with pytest.raises(ValueError, match=r"one size.*\(3, 5, 3\) and \(5, 3, 3\)"):
        in_a_file([np.zeros((3, 5, 3)), np.zeros((5, 3, 3))])
    assert in_a_file([]).shape == (0, 0, 0, 3)
