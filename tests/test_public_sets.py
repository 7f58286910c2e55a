"""The five public sets, laid out as they are unpacked: what is read, in what order."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from keras_parti import data

COUNT = 12  # pictures of each split, or of both where the set has none


def picture(number):
    """Bytes of a picture whose pixels tell its number; PNG, so that they stay."""
    buffer = io.BytesIO()
    Image.new("RGB", (7, 7), (number, 3, 5)).save(buffer, "PNG")
    return buffer.getvalue()


def lay(root, names):
    """Writes pictures of rising numbers; returns {path: number}."""
    numbers = {name: number for number, name in enumerate(names)}
    for name, number in numbers.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    return numbers


def imagenet(root):
    classes = [f"n0{i}" for i in range(4)]
    names = [f"train/{classes[i % 4]}/{i}.JPEG" for i in range(COUNT)]
    names += [f"val/{classes[i % 4]}/ILSVRC_{i}.JPEG" for i in range(COUNT)]
    found = lay(root, names)
    return found, {name: (name.split("/")[1], []) for name in found}


def celeba_hq(root):
    found = lay(root, [f"{i}.jpg" for i in range(2 * COUNT)])
    return found, {name: ("", []) for name in found}


def ffhq(root):
    found = lay(root, [f"{i // 9:02d}000/{i:05d}.png" for i in range(2 * COUNT)])
    return found, {name: (name.split("/")[0], []) for name in found}


def coco(root):
    names = [
        f"{split}2014/COCO_{split}2014_{i:012d}.jpg"
        for split in ("train", "val")
        for i in range(COUNT)
    ]
    found, told = lay(root, names), {}
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        mine = {int(n[-16:-4]): n for n in names if n.startswith(split)}
        images = [{"id": i, "file_name": n.split("/")[1]} for i, n in mine.items()]
        pairs = [(i, f"{split} {i}, {k}") for k in range(5) for i in mine]
        annotations = [{"image_id": i, "caption": text} for i, text in pairs]
        content = {"images": images, "annotations": annotations}
        path = root / "annotations" / f"captions_{split}2014.json"
        path.write_text(json.dumps(content))
        told |= {
            n: ("", [f"{split} {i}, {k}" for k in range(5)]) for i, n in mine.items()
        }
    return found, told


def narratives(root):
    names = [f"{s}2017/{i:012d}.jpg" for s in ("train", "val") for i in range(COUNT)]
    found = lay(root, names)
    for split, file in (
        ("train", "coco_train_localized_narratives-00000-of-00004.jsonl"),
        ("val", "coco_val_captions.jsonl"),
    ):
        lines = [
            {
                "dataset_id": f"mscoco_{split}2017",
                "image_id": str(i),
                "caption": f"We see {i}.",
            }
            for i in range(COUNT)
        ]
        (root / file).write_text("\n".join(map(json.dumps, lines)))
    return found, {name: ("", [f"We see {int(name[-16:-4])}."]) for name in found}


SETS = {f.__name__: f for f in (imagenet, celeba_hq, ffhq, coco, narratives)}
each = pytest.mark.parametrize("make", SETS.values(), ids=SETS)


def read(root, split, **options):
    """Numbers, categories and captions of a split's pictures, by path, in order."""
    return {
        e["key"].decode(): (
            round(float(e["image"][0, 0, 0]) * 255),
            e["category"].decode(),
            [text.decode() for text in e["captions"]],
        )
        for e in data.load(root, split, **options).as_numpy_iterator()
    }


@each
def test_every_picture_comes_once_with_its_category_and_captions(make, tmp_path):
    numbers, told = make(tmp_path)
    splits = data.splits(tmp_path)
    assert set(splits) == {"train", "validation"}
    parts = {split: read(tmp_path, split) for split in splits}
    assert {split: len(part) for split, part in parts.items()} == splits
    assert sum(splits.values()) == len(numbers)
    expected = {name: (numbers[name], *told[name]) for name in numbers}
    assert parts["train"] | parts["validation"] == expected


@each
def test_broken_pictures_are_left_out_counted_and_named(make, tmp_path, caplog):
    make(tmp_path)
    whole = list(read(tmp_path, "train"))
    bad = {whole[1]: b"", whole[3]: b"no picture", whole[4]: picture(9)[:40]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / whole[6]).unlink()
    listed = make in (coco, narratives)  # else nobody knows that it was there
    with caplog.at_level(logging.WARNING):
        left = list(read(tmp_path, "train"))
    assert left == [n for n in whole if n not in {*bad, whole[6]}]
    (message,) = caplog.messages
    assert f"skipped {3 + listed} pictures" in message
    assert all(name in message for name in bad)
    assert (whole[6] in message) == listed


@each
def test_splits_order_and_shards_are_the_same_wherever_the_set_lies(make, tmp_path):
    roots = tmp_path / "here", tmp_path / "there" / "deep"
    for root in roots:
        root.mkdir(parents=True)
        make(root)
    for split in ("train", "validation"):
        one, two = (list(read(root, split)) for root in roots)
        assert one == two
    orders = [
        list(read(root, "train", shuffle_seed=seed))
        for root, seed in zip((*roots, roots[0]), (5, 5, 6), strict=True)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    whole = list(read(roots[0], "train"))
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(whole)
    shards = [read(roots[1], f"train[{i}%:{i + 25}%]") for i in range(0, 100, 25)]
    assert [name for shard in shards for name in shard] == whole
    stored = data.StoredSplit(roots[0], "train", 7)
    parts = [stored[start : start + 5] for start in range(0, len(stored), 5)]
    keys = [e["key"].decode() for p in parts for e in p.as_numpy_iterator()]
    assert keys == whole


@each
def test_a_set_becomes_token_shards_that_hold_each_picture_once(make, tmp_path):
    (tmp_path / "set").mkdir()
    make(tmp_path / "set")
    for out in ("a", "b"):
        data.write_token_cache(
            tmp_path / out,
            "train",
            data.StoredSplit(tmp_path / "set", "train", 7),
            lambda images: np.rint(images[:, 0, :4, 0] * 255).astype("int32"),
            "a tokenizer",
            256,
            4,
            shards=3,
        )
    one, two = (
        [
            (e["ids"].tolist(), [text.decode() for text in e["captions"]])
            for e in data.read_token_cache(tmp_path / out, "train").as_numpy_iterator()
        ]
        for out in ("a", "b")
    )
    assert one == two
    assert len(list((tmp_path / "a").glob("train-*"))) == 3
    expected = read(tmp_path / "set", "train").values()
    assert sorted(one) == sorted(([n] * 4, texts) for n, _, texts in expected)
