"""Many prompts: read as published, drawn once each, reported on one page."""

import functools
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_parti.evaluation import parti_prompts
from keras_parti.evaluation.parti_prompts import Prompt, read_prompts, spread
from keras_parti.evaluation.prompt_report import group_of, write_prompt_report
from keras_parti.evaluation.prompt_run import draw_prompts, read_records

HEADER = "Prompt\tCategory\tChallenge\tNote\n"
ROWS = (
    "bond\tAbstract\tBasic\tconcepts\n"
    '"G I G G L E" on a board\tArtifacts\tWriting & Symbols\t\n'
    " a “fox” </script>\u2028ã \tAnimals\tSimple Detail\t\n"
)


def write(folder, text, name="prompts.tsv"):
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def many(count):
    kinds = [("Animals", "Basic"), ("Arts", "Quantity"), ("Animals", "Imagination")]
    return [Prompt(i, f"thing {i}", *kinds[i % 3], "") for i in range(count)]


def paint(texts, seed):
    """Pictures and scores that text and seed decide."""
    seeds = [[*hashlib.sha256(t.encode()).digest()[:4], seed % 2**32] for t in texts]
    randoms = [np.random.default_rng(each) for each in seeds]
    images = [r.integers(0, 256, (1, 5, 7, 3), np.uint8) for r in randoms]
    return {
        "images": np.stack(images),
        "score": np.array([[-r.random()] for r in randoms], np.float32),
        "truncated": np.array([len(t) > 8 for t in texts]),
    }


def test_quotes_spaces_and_odd_letters_are_kept(tmp_path):
    expected = [
        Prompt(0, "bond", "Abstract", "Basic", "concepts"),
        Prompt(1, '"G I G G L E" on a board', "Artifacts", "Writing & Symbols", ""),
        Prompt(2, " a “fox” </script>\u2028ã ", "Animals", "Simple Detail", ""),
    ]
    assert read_prompts(write(tmp_path, HEADER + ROWS)) == expected
    windows = "\ufeff" + (HEADER + ROWS).replace("\n", "\r\n")
    assert read_prompts(write(tmp_path, windows)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with the columns Prompt, Category"),
        ("Prompt,Category\na,b\n", "must begin with the columns"),
        (HEADER, "holds no prompt"),
        (HEADER + "a\tb\n", "Row 2 of .* must have 4 fields. Received: 2"),
    ],
)
def test_another_file_is_refused(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        read_prompts(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "p.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        read_prompts(tmp_path / "p.tsv")


def test_the_fetched_file_must_be_the_published_one(tmp_path, monkeypatch):
    source = write(tmp_path, HEADER + ROWS, "PartiPrompts.tsv")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    get = functools.partial(keras.utils.get_file, cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(keras.utils, "get_file", get)
    monkeypatch.setattr(parti_prompts, "URL", source.as_uri())
    with pytest.raises(ValueError, match=r"[Ii]ncomplete or corrupted"):
        read_prompts()
    monkeypatch.setattr(parti_prompts, "SHA256", digest)
    assert len(read_prompts()) == 3
    source.unlink()
    assert len(read_prompts()) == 3  # from the cache
    missing = (tmp_path / "none.tsv").as_uri()
    monkeypatch.setattr(parti_prompts, "URL", missing)
    with pytest.raises(OSError, match="Give the file by its path"):
        read_prompts()


def test_some_prompts_are_spread_evenly_and_keep_their_places():
    prompts = many(37)
    assert spread(prompts, 37) == spread(prompts, 99) == prompts
    steps = np.diff([prompt.index for prompt in spread(prompts, 11)])
    assert (steps.min(), steps.max()) == (3, 4)
    assert spread(prompts, 1) == prompts[:1]


def test_each_picture_is_that_of_its_prompt_and_seed(tmp_path):
    prompts = many(37)
    assert draw_prompts(paint, prompts, tmp_path, num_samples=3, seed=5) == 111
    records = read_records(tmp_path)
    pairs = [(r["index"], r["seed"]) for r in records]
    assert pairs == [(i, s) for i in range(37) for s in (5, 6, 7)]
    for record in records:
        prompt = prompts[record["index"]]
        expected = paint([prompt.text], record["seed"])
        with Image.open(tmp_path / "pictures" / record["file"]) as picture:
            assert (np.asarray(picture) == expected["images"][0, 0]).all()
        assert record["score"] == expected["score"][0, 0]
        assert record["truncated"] == expected["truncated"][0]
        kinds = record["prompt"], record["category"], record["challenge"]
        assert kinds == prompt[1:4]
    assert draw_prompts(paint, prompts, tmp_path, num_samples=3, seed=5) == 0


def test_shards_draw_each_picture_once_and_in_full_batches(tmp_path):
    prompts, sizes = many(53), []

    def counted(texts, seed):
        sizes.append(len(texts))
        return paint(texts, seed)

    drawn = [
        draw_prompts(counted, prompts, tmp_path, num_samples=2, shard=(part, 3))
        for part in range(3)
    ]
    assert drawn == [36, 36, 34]
    assert sizes == [16, 2, 16, 2, 16, 2, 16, 2, 16, 1, 16, 1]
    assert len(read_records(tmp_path)) == 106
    with pytest.raises(ValueError, match="0 <= I < N"):
        draw_prompts(paint, prompts, tmp_path, shard=(3, 3))


def test_a_damaged_picture_is_drawn_again(tmp_path):
    prompts = many(5)
    draw_prompts(paint, prompts, tmp_path)
    first, second, third, *_ = sorted((tmp_path / "pictures").iterdir())
    first.write_bytes(first.read_bytes()[:20])
    second.write_bytes(b"")
    Image.new("RGB", (3, 3)).save(third)
    assert len(read_records(tmp_path)) == 2
    assert draw_prompts(paint, prompts, tmp_path) == 3
    assert len(read_records(tmp_path)) == 5


def test_a_folder_takes_pictures_of_one_run_only(tmp_path):
    draw_prompts(paint, many(5), tmp_path, model="a", options={"top_k": 1})
    with pytest.raises(ValueError, match=r"model='a'\. Received: model='b'"):
        draw_prompts(paint, many(5), tmp_path, model="b", options={"top_k": 1})
    with pytest.raises(ValueError, match=r"options=.*Choose another folder"):
        draw_prompts(paint, many(5), tmp_path, model="a", options={"top_k": 2})
    with pytest.raises(ValueError, match="with prompts="):
        draw_prompts(paint, many(6), tmp_path, model="a", options={"top_k": 1})


KILLED_RUN = """
import contextlib, itertools, os, signal, sys, threading, time
sys.path[:0] = [sys.argv[2]]
from test_parti_prompts import many, paint
from keras_parti.evaluation import prompt_run

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

@contextlib.contextmanager
def slowly(path, **options):
    number = next(numbers)
    if number == 10:
        threading.Timer(float(sys.argv[3]), kill).start()
    with written_whole(path, **options) as part:
        yield part
        time.sleep(0.005 if number < 40 else 60)

written_whole, numbers = prompt_run.written_whole, itertools.count()
prompt_run.written_whole = slowly
prompt_run.draw_prompts(paint, many(61), sys.argv[1], num_samples=2, model="m")
"""


def test_kills_lose_and_double_nothing(tmp_path):
    draw_prompts(paint, many(61), tmp_path / "whole", num_samples=2, model="m")
    out, counts = tmp_path / "killed", [0]
    command = [sys.executable, "-c", KILLED_RUN, out, Path(__file__).parent]
    for delay in (0.011, 0.042, 0.027):
        done = subprocess.run([*command, str(delay)], stderr=subprocess.DEVNULL)
        assert done.returncode == -signal.SIGKILL
        counts.append(len(read_records(out)))
    assert 0 < counts[1] < counts[2] < counts[3] < 61 * 2
    draw_prompts(paint, many(61), out, num_samples=2, model="m")
    assert content(out) == content(tmp_path / "whole")


def content(folder):
    """All files of a run: what the records say but for times, and the pixels."""
    found = {}
    for path in sorted((folder / "pictures").iterdir()):
        with Image.open(path) as picture:
            record = json.loads(picture.info["keras_parti"])
            found[path.name] = picture.tobytes(), record["score"], record["prompt"]
    return found


def test_the_figures_are_means_over_prompts(tmp_path):
    prompts = many(7)
    draw_prompts(paint, prompts, tmp_path, num_samples=3, options={"top_k": 0})
    results = write_prompt_report(tmp_path, prompts, 3)
    records = read_records(tmp_path)
    animals = [
        [r["score"] for r in records if r["index"] == i] for i in (0, 2, 3, 5, 6)
    ]
    found = results["categories"]["Animals"]
    assert found["prompts"] == 5
    assert found["pictures"] == 15
    assert found["score"] == pytest.approx(np.mean(animals))
    assert found["best_score"] == pytest.approx(np.max(animals, axis=1).mean())
    assert (results["pictures"], results["wanted"]) == (21, 21)
    assert results["groups"].keys() == {"Standard", "Challenging"}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert "| Animals | 5 | 15 |" in (tmp_path / "table.md").read_text()


def test_challenges_belong_to_the_groups_of_the_paper():
    assert group_of("Simple Detail") == "Standard"
    assert group_of("Style & Format") == "Intermediate"
    assert group_of("Quantity") == group_of("Complex") == "Challenging"


def test_runs_of_other_prompts_are_not_set_side_by_side(tmp_path):
    draw_prompts(paint, many(5), tmp_path / "a")
    draw_prompts(paint, many(6), tmp_path / "b")
    with pytest.raises(ValueError, match="other prompts"):
        write_prompt_report(tmp_path / "a", many(5), 1, against=tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        write_prompt_report(tmp_path / "a", many(5), 1, against=tmp_path)
