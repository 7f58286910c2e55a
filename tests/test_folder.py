"""A folder of pictures is a picture set, whatever lies in it."""

import logging
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_parti import data
from keras_parti.data import folder as folders

COUNT = 23


def write(path, grey=100, size=(13, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path)


@pytest.fixture
def photos(tmp_path):
    """Pictures 0 to 22, each of its own grey; all in split `train` but the held out."""
    root = tmp_path / "photos"
    for i in range(COUNT):
        write(root / f"{i:02d}.png", 10 * i)
    (root / "03.txt").write_text("a grey wall\n\n  half of it in fog \n")
    (root / "notes.md").write_text("no picture")
    write(root / ".thumbnails" / "00.png")
    return root


def greys(dataset):
    return [
        int(np.rint(e["image"][0, 0, 0] * 255)) // 10
        for e in dataset.as_numpy_iterator()
    ]


def test_every_picture_is_in_one_split(photos):
    sizes = data.splits(photos)
    assert set(sizes) == {"train", "validation"}
    assert sum(sizes.values()) == COUNT
    assert 1 <= sizes["validation"] <= 5
    found = [grey for split in sizes for grey in greys(data.load(photos, split))]
    assert sorted(found) == list(range(COUNT))


@pytest.mark.parametrize("endless", [False, True])
def test_pictures_that_vanish_meanwhile_end_the_reading(photos, endless):
    folder = data.PictureFolder(photos)
    found = folder.read(folder.splits["train"], repeat=endless)
    shutil.rmtree(photos)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"None of the .+ can be"):
        list(found)


def test_held_out_pictures_stay_so_when_others_come(photos):
    before = set(data.PictureFolder(photos).splits["validation"])
    for i in range(60):
        write(photos / f"new{i}.jpg")
    after = set(data.PictureFolder(photos).splits["validation"])
    # But perhaps the one that stood in while none fell below one in twenty.
    assert len(before - after) <= 1
    held_out = photos / min(after)
    copy = held_out.with_suffix(".webp" if held_out.suffix != ".webp" else ".png")
    write(copy)
    assert copy.name in data.PictureFolder(photos).splits["validation"]


def test_what_is_held_out_of_a_small_folder_can_be_read(tmp_path):
    """Else ten pictures, one of them broken, cannot be trained on with bad luck."""
    for i in range(7):
        write(tmp_path / f"{i}.png")
    (held_out,) = data.PictureFolder(tmp_path).splits["validation"]
    (tmp_path / held_out).write_bytes(b"")
    splits = data.PictureFolder(tmp_path).splits
    assert len(splits["validation"]) == 2
    assert held_out in splits["validation"]  # as before
    assert len(greys(data.load(tmp_path, "validation"))) == 1
    stored = data.StoredSplit(tmp_path, "validation", 5)
    assert not stored.skipped  # until it is read, so that a cache can name it
    assert len(greys(stored[:2])) == 1
    assert list(stored.skipped) == [held_out]


def test_folders_named_as_splits_are_the_splits(tmp_path):
    write(tmp_path / "train" / "birds" / "owls" / "snowy.owl.png", 20)
    write(tmp_path / "train" / "b.png")
    write(tmp_path / "validation" / "c.png")
    write(tmp_path / "else" / "d.png")
    assert data.splits(tmp_path) == {"train": 2, "validation": 1}
    _, owl = data.load(tmp_path, "train").as_numpy_iterator()
    assert owl["name"] == b"snowy.owl"
    assert owl["category"] == b"birds/owls"
    assert owl["key"] == b"train/birds/owls/snowy.owl.png"


def test_categories_are_folders(tmp_path):
    for i in range(5):
        write(tmp_path / "cats" / f"{i}.png")
        write(tmp_path / "dogs" / f"{i}.png")
    both = [e for s in data.splits(tmp_path) for e in data.load(tmp_path, s)]
    assert {e["category"].numpy() for e in both} == {b"cats", b"dogs"}


def test_captions_are_the_lines_of_the_text_beside_a_picture(photos):
    captions = {
        e["name"].decode(): e["captions"].tolist()
        for split in data.splits(photos)
        for e in data.load(photos, split).as_numpy_iterator()
    }
    assert captions.pop("03") == [b"a grey wall", b"half of it in fog"]
    assert all(each == [] for each in captions.values())


def test_pictures_are_cut_to_the_square_in_their_middle(tmp_path):
    columns = np.zeros((30, 90, 3), np.uint8)
    columns[:, 30:60] = 250
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    Image.fromarray(columns).save(tmp_path / "train" / "a.png")
    Image.fromarray(columns).save(tmp_path / "test" / "a.png")
    (example,) = data.load(tmp_path, "train", image_size=10)
    assert example["image"].shape == (10, 10, 3)
    np.testing.assert_allclose(example["image"], 250 / 255, atol=1e-6)


def test_a_part_of_a_split_can_be_named(photos):
    whole = greys(data.load(photos, "train"))
    assert greys(data.load(photos, "train[3:7]")) == whole[3:7]
    assert greys(data.load(photos, "train[-2:]")) == whole[-2:]
    assert len(greys(data.load(photos, "train+validation"))) == COUNT


def test_the_order_is_the_seeds(photos):
    one, same, other = (
        greys(data.load(photos, "train", shuffle_seed=s, repeat=True).take(40))
        for s in (1, 1, 2)
    )
    assert one == same
    assert one != other
    dataset = data.load(photos, "train", shuffle_seed=1, repeat=True).take(40)
    assert greys(dataset) == greys(dataset) == one
    whole = greys(data.load(photos, "train"))
    assert sorted(one[: len(whole)]) == whole


def spoil(photos):
    """Makes four pictures unreadable; returns their names and those of the rest."""
    names = data.PictureFolder(photos).splits["train"]
    bad = names[2], names[5], names[6], names[9]
    (photos / bad[0]).write_bytes(b"")
    (photos / bad[1]).write_bytes((photos / bad[1]).read_bytes()[:50])
    (photos / bad[2]).write_text("a letter")
    (photos / bad[3]).unlink()
    (photos / bad[3]).symlink_to("nowhere.png")
    return bad, [int(n[:2]) for n in names if n not in bad]


def test_unreadable_pictures_are_left_out_and_named_once(photos, caplog):
    bad, good = spoil(photos)
    dataset = data.load(photos, "train", repeat=True, image_size=5)
    with caplog.at_level(logging.WARNING):
        assert greys(dataset.take(3 * len(good))) == 3 * good
        data.load(photos, "train")  # opened again, as trainings do
        assert len(greys(data.load(photos, "train"))) == len(good)
    (message,) = caplog.messages
    assert "skipped 4 pictures" in message
    assert all(name in message for name in bad)
    assert "the file is empty" in message


def test_what_a_short_reading_left_out_is_named_in_the_end(photos, caplog):
    bad, _ = spoil(photos)
    dataset = data.load(photos, "train", repeat=True)

    def named():
        words = " ".join(m for m in caplog.messages if str(photos) in m)
        return re.findall(r"(\d\d\.png) \(", words)

    next(iter(dataset.skip(2)))  # and some that are read ahead
    folders.report_skipped()
    folders.report_skipped()
    assert bad[0] in named()
    list(dataset.take(2 * COUNT))
    assert sorted(named()) == sorted(bad)


def test_pictures_of_kinds_that_are_not_read_are_named(photos, caplog):
    (photos / "photo.HEIC").write_bytes(b"a camera's")
    (photos / "raw").mkdir()
    (photos / "raw" / "a.dng").write_bytes(b"a camera's")
    for _ in range(2):
        assert sum(data.splits(photos).values()) == COUNT
    (message,) = caplog.messages
    assert (
        "skipped 2 pictures: photo.HEIC (.HEIC files are not read), raw/a.d" in message
    )


def test_a_split_is_known_by_its_pictures(photos, tmp_path):
    def identity(folder):
        return data.StoredSplit(folder, "train", 5).identity

    known = identity(photos)
    assert re.fullmatch(r"a folder of \d+ pictures, [0-9a-f]{16}", known)
    shutil.copytree(photos, tmp_path / "moved")
    assert identity(tmp_path / "moved") == known
    first = data.PictureFolder(photos).splits["train"][0]
    (tmp_path / "moved" / first).rename(tmp_path / "moved" / f"else {first}")
    assert identity(tmp_path / "moved") != known


@pytest.mark.parametrize("skipped", [3, 100])
def test_skipped_examples_change_none_of_the_others(photos, skipped):
    _, good = spoil(photos)
    how = {"shuffle_seed": 7, "repeat": True, "image_size": 5}
    count = 2 * len(good)
    whole = greys(data.load(photos, "train", **how).take(skipped + count))
    late = data.load(photos, "train", skipped=skipped, **how)
    assert greys(late.take(count)) == whole[skipped:]


def test_of_many_skipped_examples_none_is_decoded_twice(photos, monkeypatch):
    spoil(photos)
    names = data.PictureFolder(photos).splits["train"]
    decoded = []
    decode = folders.decode_picture

    def noted(source, *args):
        decoded.append(source)
        return decode(source, *args)

    monkeypatch.setattr(folders, "decode_picture", noted)
    dataset = data.load(photos, "train", shuffle_seed=7, repeat=True, skipped=10_000)
    next(iter(dataset))
    # All once, and those that are read ahead.
    assert len(decoded) < 10 * len(names)


def test_batches_of_training_are_full_although_pictures_are_left_out(photos):
    spoil(photos)
    batches = data.load(photos, "train", repeat=True, image_size=5, batch_size=4)
    assert [len(b["image"]) for b in batches.take(9)] == [4] * 9


def test_a_part_without_one_readable_picture_is_empty(photos):
    """Else a shard of a token cache that holds one broken picture could not be made."""
    stored = data.StoredSplit(photos, "train", 5)
    names = data.PictureFolder(photos).splits["train"]
    (photos / names[2]).write_bytes(b"")
    assert not greys(stored[2:3])
    assert list(stored.skipped) == [names[2]]
    shutil.rmtree(photos)
    with pytest.raises(ValueError, match=r"None of the .+ can be"):
        greys(stored[3:5])


def test_a_folder_without_one_readable_picture_is_an_error(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"None of the .* pictures.*and \d+ more"):
        data.load(tmp_path, "train")


def test_a_folder_without_pictures_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("a caption")
    with pytest.raises(FileNotFoundError, match="holds no pictures"):
        data.load(tmp_path, "train")


def test_an_unknown_split_lists_those_there_are(photos):
    with pytest.raises(ValueError, match=r"'train', 'validation'.*Received: 'tests'"):
        data.load(photos, "tests")


def test_random_crops_are_those_of_the_seed(photos):
    rng = np.random.default_rng(0)
    for path in photos.glob("*.png"):
        noise = rng.integers(256, size=(40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)

    def crops(seed):
        dataset = data.load(
            photos,
            "train[:5]",
            shuffle_seed=seed,
            repeat=True,
            image_size=8,
            augment="tokenizer",
        )
        return np.stack([e["image"] for e in dataset.take(10).as_numpy_iterator()])

    one = crops(1)
    assert one.shape == (10, 8, 8, 3)
    np.testing.assert_array_equal(one, crops(1))
    assert np.abs(one - crops(2)).mean() > 0.05
    assert len({crop.tobytes() for crop in one}) == 10
    with pytest.raises(ValueError, match="`augment` needs `image_size`"):
        data.load(photos, "train", augment="tokenizer")


def test_parts_of_a_stored_split_are_the_split(photos):
    spoil(photos)
    split = data.StoredSplit(photos, "train", 5)
    assert len(split) == data.splits(photos)["train"]
    whole = greys(data.load(photos, "train", image_size=5))
    assert greys(split[:4]) + greys(split[4 : len(split)]) == whole
    assert len(split.skipped) == 4


def test_each_pass_of_a_stored_split_has_other_crops(photos):
    rng = np.random.default_rng(0)
    for path in photos.glob("*.png"):
        noise = rng.integers(256, size=(30, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    split = data.StoredSplit(photos, "train", 8, "transformer", passes=2)
    count = len(split) // 2
    both = np.stack([e["image"] for e in split[: 2 * count].as_numpy_iterator()])
    parts = [split[:7], split[7 : count + 3], split[count + 3 : 2 * count]]
    found = [e["image"] for part in parts for e in part.as_numpy_iterator()]
    np.testing.assert_array_equal(both, found)
    # At this size half of the crops are the whole picture.
    other = np.abs(both[:count] - both[count:]).max(axis=(1, 2, 3)) > 0.01
    assert other.mean() > 0.4


def test_summaries_stay_short():
    skipped = {f"{i}.png": "truncated" for i in range(50)}
    words = folders.summarize(skipped)
    assert words.startswith("50 pictures: 0.png (truncated), 1.png")
    assert words.endswith("and 30 more")
    assert folders.summarize({}) == ""
    assert folders.summarize({"a.png": "empty"}) == "1 picture: a.png (empty)"


def test_large_pictures_pass_in_bounded_memory(tmp_path):
    # 40 of 12 MB each; as floats they would be 1.9 GB if they were kept.
    write(tmp_path / "0.png", size=(2000, 2000))
    for i in range(1, 40):
        (tmp_path / f"{i}.png").hardlink_to(tmp_path / "0.png")
    script = (
        "import resource, sys\n"
        "from keras_parti import data\n"
        f"dataset = data.load({str(tmp_path)!r}, 'train', image_size=64)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before, count = peak(), sum(1 for _ in dataset)\n"
        "print(count, peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    count, grown = run.stdout.split()
    assert int(count) >= 30, run.stderr
    assert float(grown) < 400  # MB


def test_pictures_of_all_sizes_become_a_gallery_of_one(tmp_path):
    from keras_parti.evaluation.pictures import load_splits

    for i, size in enumerate([(13, 7), (5, 5), (7, 11)]):
        write(tmp_path / f"{i}.png", size=size)
    found = load_splits(tmp_path, 5)
    assert {pictures.images.shape[1:] for pictures in found.values()} == {(5, 5, 3)}
    assert sum(map(len, found.values())) == 3


def test_a_folder_becomes_a_token_cache_with_crops_and_gaps(photos, tmp_path):
    from keras_parti.models import ViTVQGAN
    from keras_parti.training.preparation import encode_set

    bad, good = spoil(photos)
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    sizes = data.splits(photos)
    counts = encode_set(model, photos, tmp_path / "a", shards=2)
    encoded, kept, skipped = counts["train"]
    assert (encoded, kept) == (len(good), 0)
    assert set(skipped) == set(bad)
    assert counts["validation"] == (sizes["validation"], 0, {})
    again = encode_set(model, photos, tmp_path / "a", shards=2)["train"]
    assert again == (0, len(good), skipped)

    twice = encode_set(model, photos, tmp_path / "b", crops=2)
    assert twice["train"][0] == 2 * len(good)
    assert twice["validation"][0] == sizes["validation"]
    cache = data.read_token_cache(tmp_path / "b", "train", model.fingerprint())
    names = [e["name"].decode() for e in cache.as_numpy_iterator()]
    assert names == 2 * [f"{number:02d}" for number in good]
