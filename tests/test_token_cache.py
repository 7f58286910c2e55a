"""The token cache gives back what was encoded, or says why it cannot."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_parti.data import token_cache

CODES, TOKENS, COUNT = 31, 7, 23


def example(i):
    return {
        "image": np.full((5, 3, 3), i / COUNT, np.float32),
        "captions": [f"thing {i} in google style", f"google thing {i}", "é 禁"],
        "synonyms": [] if i % 2 else [f"object {i}"],
        "name": f"thing {i}",
        "style": "google",
        "tone": "",
    }


EXAMPLES = [example(i) for i in range(COUNT)]


def ids_of(images):
    number = np.rint(images[:, 0, 0, 0] * COUNT).astype(np.int64)
    return (number[:, None] * 5 + np.arange(TOKENS)) % CODES


def write(folder, encode=ids_of, examples=EXAMPLES, split="train", **kwargs):
    arguments = {"fingerprint": "abc", "num_codes": CODES, "num_tokens": TOKENS}
    arguments |= {"shards": 3, "batch_size": 4} | kwargs
    return token_cache.write_token_cache(folder, split, examples, encode, **arguments)


@pytest.mark.parametrize("format", token_cache.FORMATS)
def test_examples_come_back_in_order(tmp_path, format):
    assert write(tmp_path, format=format) == COUNT
    dataset = token_cache.read_token_cache(tmp_path, "train", "abc")
    assert len(dataset) == COUNT
    assert dataset.element_spec["ids"].shape == (TOKENS,)
    for wanted, found in zip(EXAMPLES, dataset.as_numpy_iterator(), strict=True):
        assert found["ids"].dtype == np.int32
        np.testing.assert_array_equal(found["ids"], ids_of(wanted["image"][None])[0])
        for key in ("captions", "synonyms"):
            assert [text.decode() for text in found[key].tolist()] == wanted[key]
        for key in ("name", "style", "tone"):
            assert found[key].decode() == wanted[key]
        assert found["category"] == b""


def test_npz_is_read_without_tensorflow(tmp_path):
    write(tmp_path, format="npz")
    script = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from keras_parti.data import read_token_arrays\n"
        f"split = read_token_arrays({str(tmp_path)!r}, 'train', 'abc')\n"
        "print(split['ids'].shape, split['ids'].dtype, split['synonyms'][:2])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "(23, 7) int32 [['object 0'], []]\n", run.stderr


def test_whole_shards_are_not_made_again(tmp_path):
    calls = []

    def killed(images):
        calls.append(len(images))
        if sum(calls) > 10:  # in the second of three shards
            raise KeyboardInterrupt
        return ids_of(images)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, killed)
    with pytest.raises(ValueError, match="unfinished: 1 of 3 shards"):
        token_cache.read_token_cache(tmp_path, "train")
    first = tmp_path / "train-00000-of-00003.tfrecord"
    made = first.stat().st_mtime_ns
    assert write(tmp_path) == COUNT - COUNT // 3
    assert first.stat().st_mtime_ns == made
    assert write(tmp_path) == 0
    found = token_cache.read_token_cache(tmp_path, "train").as_numpy_iterator()
    assert [each["name"].decode() for each in found] == [e["name"] for e in EXAMPLES]


@pytest.mark.parametrize("format", token_cache.FORMATS)
def test_a_truncated_shard_is_named_and_made_again(tmp_path, format):
    write(tmp_path, format=format)
    shard = sorted(p for p in tmp_path.iterdir() if p.suffix != ".json")[-1]
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{shard.name} is truncated or altered"):
        token_cache.read_token_cache(tmp_path, "train")
    assert 0 < write(tmp_path, format=format) <= COUNT
    assert len(list(token_cache.read_token_cache(tmp_path, "train"))) == COUNT


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "train-00001-of-00003.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match=r"00001-of-00003\.tfrecord is missing"):
        token_cache.read_token_cache(tmp_path, "train")


def test_tokens_of_another_tokenizer_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="of tokenizer abc, not of xyz"):
        token_cache.read_token_cache(tmp_path, "train", "xyz")
    with pytest.raises(ValueError, match=r"holds another cache.*abc.*xyz"):
        write(tmp_path, fingerprint="xyz")


class Known(list):
    """Examples that say of which set they are."""

    def __init__(self, identity):
        super().__init__(EXAMPLES)
        self.identity = identity


def test_tokens_of_another_set_are_not_kept(tmp_path):
    assert write(tmp_path, examples=Known("cats/1.0.0")) == COUNT
    assert write(tmp_path, examples=Known("cats/1.0.0")) == 0
    words = r"'train' of .* holds tokens of cats/1.0.0, not of dogs/1.0.0. Choose"
    with pytest.raises(ValueError, match=words):
        write(tmp_path, examples=Known("dogs/1.0.0"))
    assert len(token_cache.read_token_cache(tmp_path, "train")) == COUNT
    assert write(tmp_path, examples=Known("dogs/1.0.0"), split="validation") == COUNT


def test_a_cache_that_does_not_know_its_set_is_kept(tmp_path):
    """As those of earlier releases do not; from then on it does."""
    write(tmp_path)
    assert write(tmp_path, examples=Known("cats/1.0.0")) == 0
    assert write(tmp_path) == 0
    with pytest.raises(ValueError, match=r"of cats/1.0.0, not of dogs/1.0.0"):
        write(tmp_path, examples=Known("dogs/1.0.0"))


def test_another_format_version_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / token_cache.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(ValueError, match="format version 99; this release reads 1"):
        token_cache.read_token_cache(tmp_path, "train")


def test_a_folder_or_split_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no token cache"):
        token_cache.read_token_cache(tmp_path, "train")
    write(tmp_path, split="validation")
    with pytest.raises(FileNotFoundError, match=r"'train', only \['validation'\]"):
        token_cache.read_token_cache(tmp_path, "train")


def test_splits_share_a_folder(tmp_path):
    write(tmp_path)
    write(tmp_path, split="validation", examples=EXAMPLES[:5])
    assert len(token_cache.read_token_cache(tmp_path, "train")) == COUNT
    assert len(token_cache.read_token_cache(tmp_path, "validation")) == 5


def test_a_split_cut_differently_is_written_anew(tmp_path):
    write(tmp_path)
    assert write(tmp_path, shards=2) == COUNT
    assert len(list(token_cache.read_token_cache(tmp_path, "train"))) == COUNT


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (lambda x: ids_of(x)[:, :-1], r"shape \(4, 7\).* Received: .*\(4, 6\)"),
        (lambda x: ids_of(x) / 2, "Received: float64"),
        (lambda x: ids_of(x) + 1, "from 0 to 30"),
        (lambda x: ids_of(x) - 1, "from 0 to 30"),
    ],
)
def test_ids_that_cannot_be_right_are_refused(tmp_path, encode, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path, encode)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one of .*tfrecord.* Received: 'csv'"):
        write(tmp_path, format="csv")
    with pytest.raises(ValueError, match="shards=0"):
        write(tmp_path, shards=0)
    with pytest.raises(ValueError, match="know its length"):
        write(tmp_path, examples=iter(EXAMPLES))
    with pytest.raises(ValueError, match="must have examples"):
        write(tmp_path, examples=[])
    assert not list(tmp_path.iterdir())


# --- several processes ----------------------------------------------------------------

SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
import test_token_cache as own

def encode(images):
    time.sleep({pause})
    return own.ids_of(images)

print(own.write({folder!r}, encode, shards=6, batch_size=1))
"""


def writer(folder, pause):
    script = SLOW.format(
        tests=str(Path(__file__).parent), folder=str(folder), pause=pause
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )


def shards_of(folder):
    path = folder / token_cache.MANIFEST
    return json.loads(path.read_text())["splits"]["train"]["shards"]


def test_a_killed_process_costs_no_more_than_its_shard(tmp_path):
    process = writer(tmp_path, pause=0.1)
    try:
        while not (tmp_path / token_cache.MANIFEST).exists() or (
            len(shards_of(tmp_path)) < 2
        ):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    done = shards_of(tmp_path)
    assert len(done) < 6
    made = {name: (tmp_path / name).stat().st_mtime_ns for name in done}
    with pytest.raises(ValueError, match="unfinished"):
        token_cache.read_token_cache(tmp_path, "train")
    kept = sum(line["examples"] for line in done.values())
    assert write(tmp_path, shards=6) == COUNT - kept
    assert made == {name: (tmp_path / name).stat().st_mtime_ns for name in done}
    found = token_cache.read_token_cache(tmp_path, "train").as_numpy_iterator()
    assert [each["name"].decode() for each in found] == [e["name"] for e in EXAMPLES]


def test_processes_share_the_shards_of_a_split(tmp_path):
    processes = [writer(tmp_path, pause=0.15) for _ in range(2)]
    counts = [int(process.communicate()[0]) for process in processes]
    assert sum(counts) == COUNT
    assert min(counts) > 0
    found = token_cache.read_token_cache(tmp_path, "train").as_numpy_iterator()
    assert [each["name"].decode() for each in found] == [e["name"] for e in EXAMPLES]


# --- pictures that cannot be read -----------------------------------------------------


class Gaps(list):
    """Examples of which some cannot be read."""

    def __init__(self, bad):
        super().__init__(range(COUNT))
        self.bad, self.skipped = bad, {}

    def __getitem__(self, part):
        numbers = list(range(COUNT))[part]
        self.skipped |= {f"{i}.png": "truncated" for i in numbers if i in self.bad}
        return [example(i) for i in numbers if i not in self.bad]


@pytest.mark.parametrize("format", token_cache.FORMATS)
def test_skipped_pictures_are_counted_and_named(tmp_path, format):
    bad = {0, 1, 2, 3, 4, 5, 6, 11, 22}  # the whole first of three shards
    assert write(tmp_path, examples=Gaps(bad), format=format) == COUNT - len(bad)
    dataset = token_cache.read_token_cache(tmp_path, "train")
    assert len(dataset) == COUNT - len(bad)
    names = [each["name"].decode() for each in dataset.as_numpy_iterator()]
    assert names == [f"thing {i}" for i in range(COUNT) if i not in bad]
    manifest = token_cache.read_manifest(tmp_path)
    skipped = token_cache.skipped_of(manifest, "train")
    assert skipped == {f"{i}.png": "truncated" for i in bad}
    assert write(tmp_path, examples=Gaps(bad), format=format) == 0


def test_a_split_without_one_readable_picture_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="None of the 23 pictures of train"):
        write(tmp_path, examples=Gaps(set(range(COUNT))))


def test_only_the_parts_that_are_wanted_are_read(tmp_path):
    class Noting(Gaps):
        parts = []

        def __getitem__(self, part):
            self.parts.append((part.start, part.stop))
            return super().__getitem__(part)

    write(tmp_path)
    (tmp_path / "train-00001-of-00003.tfrecord").unlink()
    assert write(tmp_path, examples=Noting(set())) == 8
    assert Noting.parts == [(7, 15)]


def test_other_crops_are_encoded_anew(tmp_path):
    write(tmp_path)
    assert write(tmp_path, augment="transformer, seed 0") == COUNT
    assert write(tmp_path, augment="transformer, seed 0") == 0


def test_large_splits_have_more_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "SHARD_SIZE", 4)
    write(tmp_path, shards=None)
    assert len(shards_of(tmp_path)) == 6
