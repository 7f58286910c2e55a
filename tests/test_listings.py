"""Captions in one file, and pictures in tar files, read as the sets lay them out."""

import io
import json
import logging
import tarfile

import numpy as np
import pytest
from PIL import Image

from keras_parti import data
from keras_parti.data.folder import PictureFolder
from keras_parti.data.listings import find_listing


def png(seed, size=(13, 11)):
    random = np.random.default_rng(seed)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lay(root, pictures):
    """Writes a picture under each path, each another."""
    for seed, name in enumerate(pictures):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(seed))


def said(root, split):
    """Captions of a split by the key of the picture."""
    examples = data.load(root, split).as_numpy_iterator()
    return {
        e["key"].decode(): [caption.decode() for caption in e["captions"]]
        for e in examples
    }


def test_a_csv_names_pictures_and_any_number_of_captions(tmp_path):
    lay(tmp_path, ["a.png", "b/c.png", "d.png"])
    text = '\ufefffile,caption,other\na.png,"A fox, red",it\nb/c.png,  two  foxes ,\n'
    (tmp_path / "captions.csv").write_text(text, encoding="utf-8")
    found = said(tmp_path, "train") | said(tmp_path, "validation")
    assert found == {"a.png": ["A fox, red", "it"], "b/c.png": ["two foxes"]}


@pytest.mark.parametrize("name", ["captions.jsonl", "metadata.jsonl"])
def test_json_lines_have_one_caption_or_several(tmp_path, name):
    lay(tmp_path, ["train/a.png", "train/ü.png", "val/c.png"])
    lines = [
        {"file": "train/a.png", "captions": ["one", "two"]},
        {"file_name": "train/ü.png", "text": "drei 狐"},
        {"file": "./val/c.png", "caption": "four"},
    ]
    (tmp_path / name).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert said(tmp_path, "train") == {
        "train/a.png": ["one", "two"],
        "train/ü.png": ["drei 狐"],
    }
    assert said(tmp_path, "validation") == {"val/c.png": ["four"]}


def coco(root, year="2014"):
    names = {
        split: [f"{split}{year}/COCO_{split}{year}_{i:012d}.jpg" for i in numbers]
        for split, numbers in (("train", (9, 25)), ("val", (42, 73, 74)))
    }
    for split, paths in names.items():
        lay(root, paths)
        images = [{"id": int(p[-16:-4]), "file_name": p.split("/")[1]} for p in paths]
        told = [
            {"image_id": image["id"], "caption": f" {image['id']}, {i} time\n"}
            for i in range(2)
            for image in images
        ]
        (root / "annotations").mkdir(exist_ok=True)
        content = json.dumps({"images": images, "annotations": told})
        (root / "annotations" / f"captions_{split}{year}.json").write_text(content)
    return names


def test_coco_is_read_as_it_is_unpacked(tmp_path):
    names = coco(tmp_path)
    found = said(tmp_path, "validation")
    assert list(found) == names["val"]
    assert found[names["val"][1]] == ["73, 0 time", "73, 1 time"]
    assert data.splits(tmp_path) == {"train": 2, "validation": 3}
    (example,) = data.load(tmp_path, "train[:1]").as_numpy_iterator()
    assert example["category"] == b""


def test_narratives_take_the_place_of_captions(tmp_path):
    names = coco(tmp_path)
    lines = [
        {"dataset_id": "mscoco_val2017", "image_id": "73", "caption": "In this image."},
        {"dataset_id": "mscoco_val2017", "image_id": "42", "caption": "We see."},
    ]
    path = tmp_path / "coco_val_captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert said(tmp_path, "validation") == {
        names["val"][0]: ["We see."],
        names["val"][1]: ["In this image."],
    }
    assert len(said(tmp_path, "train")) == 2  # these are still COCO's


def test_a_listed_picture_that_is_not_there_is_named(tmp_path, caplog):
    names = coco(tmp_path)
    (tmp_path / names["val"][1]).unlink()
    with caplog.at_level(logging.WARNING):
        assert len(said(tmp_path, "validation")) == 2
    assert f"1 picture: {names['val'][1]} (" in caplog.text


def test_imagenet_has_its_classes_as_categories(tmp_path):
    lay(
        tmp_path,
        [
            "train/n01440764/n01440764_10026.JPEG",
            "train/n02123045/n02123045_7.JPEG",
            "val/n02123045/ILSVRC2012_val_00000007.JPEG",
        ],
    )
    assert data.splits(tmp_path) == {"train": 2, "validation": 1}
    (example,) = data.load(tmp_path, "validation").as_numpy_iterator()
    assert example["category"] == b"n02123045"


def test_ffhq_and_celeba_are_split_alike_wherever_they_lie(tmp_path):
    for folder in ("one", "two"):
        lay(tmp_path / folder, [f"{i // 10:02d}000/{i:05d}.png" for i in range(40)])
    found = [PictureFolder(tmp_path / folder).splits for folder in ("one", "two")]
    assert found[0] == found[1]
    assert sum(map(len, found[0].values())) == 40


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("captions.csv", "name,caption\n", "must have a column `file`"),
        ("captions.csv", "file,caption\n../a.png,x\n", "outside of its folder"),
        ("captions.jsonl", '{"file": "/etc/a.png", "caption": "x"}', "outside of its"),
        ("captions.jsonl", '{"file": "C:/a.png", "caption": "x"}', "outside of its"),
        ("captions.jsonl", '{"caption": "x"}', "Line 1 of .* must have `file`"),
        ("captions.jsonl", '{"file": "a", "caption": 3}', "must have `file`"),
        ("captions.jsonl", "{", "Line 1 of .* is no JSON"),
        ("captions.jsonl", "[]", "must be an object"),
        ("captions_val2014.json", "[]", "holds no captions of MS-COCO"),
        ("coco_val_captions.jsonl", "{}", "needs the pictures of MS-COCO"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        find_listing(tmp_path)


def test_a_folder_without_list_has_none(tmp_path):
    assert find_listing(tmp_path) is None


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                file.addfile(member)
                continue
            content = content if isinstance(content, bytes) else content.encode()
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def test_tar_shards_hold_pictures_with_their_captions(tmp_path):
    shard(
        tmp_path / "train" / "shard-000.tar",
        [
            ("000017.png", png(1)),
            ("000017.txt", "a fox\n\nit\n"),
            ("deep/b.x.json", json.dumps({"caption": "an apple"})),
            ("deep/b.x.png", png(2)),
        ],
    )
    shard(tmp_path / "validation" / "shard-000.tar", [("000017.png", png(3))])
    assert said(tmp_path, "train") == {
        "train/shard-000.tar/000017.png": ["a fox", "it"],
        "train/shard-000.tar/deep/b.x.png": ["an apple"],
    }
    first, second = data.load(tmp_path, "train").as_numpy_iterator()
    expected = np.asarray(Image.open(io.BytesIO(png(1))), np.float32) / 255
    np.testing.assert_array_equal(first["image"], expected)
    assert (first["category"], second["category"]) == (b"", b"deep")
    assert said(tmp_path, "validation") == {"validation/shard-000.tar/000017.png": []}


def test_tars_and_folders_are_split_and_shuffled_alike_each_time(tmp_path):
    for number in range(3):
        members = [(f"{number}{i:03d}.png", png(i)) for i in range(7)]
        shard(tmp_path / f"shard-{number}.tar", members)
    lay(tmp_path, ["loose.png"])
    folder = PictureFolder(tmp_path)
    assert folder.splits == PictureFolder(tmp_path).splits
    assert sum(map(len, folder.splits.values())) == 22
    loads = [data.load(tmp_path, "train", shuffle_seed=seed) for seed in (3, 3, 4)]
    orders = [[e["key"] for e in each.as_numpy_iterator()] for each in loads]
    assert orders[0] == orders[1] != orders[2]


def test_what_is_wrong_in_an_archive_is_left_out_and_named(tmp_path, caplog):
    good = [(f"{i}.png", png(i)) for i in range(3)]
    bad = [
        ("../../evil.png", png(8)),
        ("/etc/evil.png", png(8)),
        ("link.png", None),
        ("broken.png", png(9)[:40]),
        ("0.json", "{no json"),
    ]
    shard(tmp_path / "a.tar", good + bad)
    shard(tmp_path / "b.tar", good)
    (tmp_path / "c.tar").write_bytes(b"no archive at all" * 99)
    with caplog.at_level(logging.WARNING):
        folder = PictureFolder(tmp_path)
    assert "skipped 4 pictures" in caplog.text
    for words in (
        "a.tar/../../evil.png (its name points outside",
        "a.tar//etc/evil.png (its name points outside",
        "a.tar/link.png (it is a link or a device",
        "c.tar (no readable tar file",
    ):
        assert words in caplog.text
    paths = [p for paths in folder.splits.values() for p in paths]
    assert sorted(paths) == [
        *(f"a.tar/{i}.png" for i in range(3)),
        "a.tar/broken.png",
        *(f"b.tar/{i}.png" for i in range(3)),
    ]
    # A shard that is cut off while a run reads it.
    with open(tmp_path / "b.tar", "r+b") as file:
        file.truncate(folder._places["b.tar/2.png"].offset + 10)
    read = list(folder.read(sorted(paths), report=False).as_numpy_iterator())
    assert {e["key"] for e in read} >= {b"a.tar/0.png", b"b.tar/0.png"}
    assert "a.tar/broken.png" in folder.skipped
    assert "ends in the middle" in folder.skipped["b.tar/2.png"]
    assert not list(tmp_path.parent.rglob("evil*"))
