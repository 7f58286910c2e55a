"""Prompts become the same ids in Python, in graphs and in SavedModels."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_parti import text
from keras_parti.text import BOS, EOS, PAD, Vocabulary, train_vocabulary

LENGTH = 23
NAMES = "grinning cat|red apple|dog face|pizza|spouting whale|tiger|green salad|bear"
CAPTIONS = [
    f"{name} in {style} style"
    for name in NAMES.split("|")
    for style in ("google", "twitter", "fluent")
]
ODD = ["", " ", "\0", "a\0b", "\n\t", "�", "a��b", "\ufeffcat", "<s></s><pad>", "▁"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "vocabulary.model"
    train_vocabulary(CAPTIONS, path)
    return path


@pytest.fixture(scope="module")
def vocabulary(path):
    return Vocabulary.from_file(path, LENGTH)


@pytest.fixture(scope="module")
def in_graph(vocabulary):
    spec = tf.TensorSpec((None,), tf.string)
    return tf.function(vocabulary.encode_tensor, input_signature=[spec])


def assert_same(report, tensors):
    for name, expected in report.items():
        got = tensors[name].numpy()
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected, err_msg=name)


def test_a_row_is_bos_pieces_eos_and_padding(vocabulary):
    (row,) = vocabulary.encode(["red apple in google style"])
    reference = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.model_bytes)
    pieces = reference.encode("red apple in google style")
    assert row.tolist() == [BOS, *pieces, EOS] + [PAD] * (LENGTH - 2 - len(pieces))
    assert row.dtype == np.int32


def test_the_empty_prompt_is_bos_eos(vocabulary, in_graph):
    expected = [[BOS, EOS] + [PAD] * (LENGTH - 2)]
    assert vocabulary.encode([""]).tolist() == expected
    assert in_graph(tf.constant([""]))["ids"].numpy().tolist() == expected


def test_no_prompts_are_no_rows(vocabulary, in_graph):
    assert vocabulary.encode([]).shape == (0, LENGTH)
    assert in_graph(tf.zeros((0,), tf.string))["ids"].shape == (0, LENGTH)


@given(prompt=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_python_and_graph_agree_on_any_unicode(vocabulary, in_graph, prompt):
    assert_same(
        vocabulary.encode_report([prompt]),
        in_graph(tf.constant([prompt.encode("utf-8")])),
    )


@given(prompt=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
@example(b"\xff")
@example(b"cat \xe2\x82 cat")
@example(b"\xed\xa0\x80\xed\xb0\x80")
@example(b"\xf5\x80\x80\x80 \xc0\xaf")
def test_python_and_graph_agree_on_any_bytes(vocabulary, in_graph, prompt):
    assert_same(vocabulary.encode_report([prompt]), in_graph(tf.constant([prompt])))


def test_python_and_graph_agree_on_odd_prompts_in_one_batch(vocabulary, in_graph):
    assert_same(vocabulary.encode_report(ODD), in_graph(tf.constant(ODD)))


@given(prompt=st.text(max_size=40) | st.sampled_from(ODD))
@settings(max_examples=100, deadline=None)
def test_no_prompt_can_write_a_special_id(vocabulary, prompt):
    report = vocabulary.encode_report([prompt])
    last = min(report["num_tokens"][0], LENGTH) - 1
    row = report["ids"][0]
    assert row[0] == BOS
    assert row[last] == EOS
    assert (row[last + 1 :] == PAD).all()
    assert not np.isin(row[1:last], [PAD, 1, BOS, EOS]).any()


def test_a_long_prompt_keeps_its_start_and_is_reported(vocabulary, in_graph):
    prompt = ("red apple " * 1000)[:10_000]
    report = vocabulary.encode_report([prompt, "pizza"])
    assert_same(report, in_graph(tf.constant([prompt, "pizza"])))
    assert report["truncated"].tolist() == [True, False]
    assert report["num_tokens"][0] > 2000
    start = vocabulary.encode([prompt[:200]])[0]
    assert report["ids"][0].tolist() == start.tolist()
    assert start[-1] == EOS


def test_exactly_full_is_not_truncated(vocabulary):
    count = vocabulary.encode_report(["red apple pizza"])["num_tokens"][0]
    for length, truncated in ((count, False), (count - 1, True)):
        shorter = Vocabulary(vocabulary.model_bytes, length)
        report = shorter.encode_report(["red apple pizza"])
        assert report["truncated"].tolist() == [truncated]
        assert report["num_tokens"][0] == count
        assert (report["ids"][0] != PAD).all()


def test_case_and_width_do_not_matter(vocabulary):
    rows = vocabulary.encode(
        ["red apple", "Red APPLE", "ｒｅｄ　ａｐｐｌｅ", " red  apple "]
    )
    assert (rows == rows[0]).all()


def test_case_matters_where_asked_for(tmp_path):
    path = tmp_path / "vocabulary.model"
    train_vocabulary(CAPTIONS, path, fold_case=False)
    assert (np.ptp(Vocabulary.from_file(path).encode(["red", "Red"]), axis=0) > 0).any()


def test_lone_surrogates_are_no_text_and_no_error(vocabulary):
    assert (vocabulary.encode(["cat\udcff"]) == vocabulary.encode(["cat"])).all()


def test_people_read_what_was_encoded(vocabulary):
    prompts = ["red apple in google style", "", "naïve 🐳 of 東京", "<s></s>"]
    assert Vocabulary(vocabulary.model_bytes).decode(
        Vocabulary(vocabulary.model_bytes).encode(prompts)
    ) == [*prompts[:2], "naïve 🐳 of 東京", prompts[3]]


def test_ids_outside_the_vocabulary_are_refused(vocabulary):
    for bad in (-1, vocabulary.size):
        with pytest.raises(ValueError, match=rf"must be in \[0, {vocabulary.size}\)"):
            vocabulary.decode([[BOS, bad, EOS]])


def test_a_data_pipeline_gives_the_same_ids(vocabulary):
    data = tf.data.Dataset.from_tensor_slices(CAPTIONS).batch(5)
    rows = [batch["ids"] for batch in data.map(vocabulary.encode_tensor)]
    np.testing.assert_array_equal(np.concatenate(rows), vocabulary.encode(CAPTIONS))


def test_shapes_are_known_in_the_graph(vocabulary):
    @tf.function
    def shapes(prompts):
        outputs = vocabulary.encode_tensor(prompts)
        assert outputs["ids"].shape.as_list() == [prompts.shape[0], LENGTH]
        assert outputs["truncated"].shape.as_list() == [prompts.shape[0]]
        return outputs

    shapes.get_concrete_function(tf.TensorSpec((None,), tf.string))
    shapes.get_concrete_function(tf.TensorSpec((3,), tf.string))


def test_the_graph_survives_a_new_seed(vocabulary, in_graph):
    before = in_graph(tf.constant(["red apple"]))["ids"]
    tf.random.set_seed(3)  # empties the cache of eager kernels and what they own
    np.testing.assert_array_equal(in_graph(tf.constant(["red apple"]))["ids"], before)
    np.testing.assert_array_equal(
        vocabulary.encode_tensor(["red apple"])["ids"], before
    )


def test_a_saved_model_takes_strings_without_this_library(vocabulary, path, tmp_path):
    train_vocabulary(CAPTIONS[:9], tmp_path / "other.model")
    other = Vocabulary.from_file(tmp_path / "other.model", LENGTH)
    module = tf.Module()
    spec = tf.TensorSpec((None,), tf.string, name="prompt")
    for name, each in (("ours", vocabulary), ("other", other)):
        setattr(module, name, tf.function(each.encode_tensor, input_signature=[spec]))
    signatures = {"ours": module.ours, "other": module.other}
    tf.saved_model.save(module, tmp_path / "1", signatures=signatures)
    script = """
import sys
import numpy as np, tensorflow as tf, tensorflow_text
prompts = [b"red apple", b"", b"\\xff pizza"]
loaded = tf.saved_model.load("1")
for name, serve in loaded.signatures.items():
    np.savez(f"{name}.npz", **serve(prompt=tf.constant(prompts)))
assert "keras_parti" not in sys.modules and "sentencepiece" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    for name, each in (("ours", vocabulary), ("other", other)):
        expected = each.encode_report([b"red apple", b"", b"\xff pizza"])
        with np.load(tmp_path / f"{name}.npz") as served:
            for key, value in expected.items():
                np.testing.assert_array_equal(served[key], value)


def test_the_same_captions_make_the_same_file(path, tmp_path):
    train_vocabulary(iter(CAPTIONS), tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == path.read_bytes()


def test_saved_and_read_again_it_is_the_same(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "copy.model")
    again = Vocabulary.from_file(tmp_path / "copy.model", LENGTH)
    assert again.fingerprint == vocabulary.fingerprint
    assert (again.encode(CAPTIONS) == vocabulary.encode(CAPTIONS)).all()


def test_another_vocabulary_has_another_fingerprint(vocabulary, tmp_path):
    train_vocabulary(CAPTIONS[:9], tmp_path / "other.model")
    other = Vocabulary.from_file(tmp_path / "other.model")
    assert other.fingerprint != vocabulary.fingerprint


def test_size_is_a_limit(tmp_path):
    train_vocabulary(CAPTIONS, tmp_path / "small.model", size=290)
    assert Vocabulary.from_file(tmp_path / "small.model").size <= 290


def test_of_many_captions_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "SAMPLED", 100)
    kept = np.array([text._sample(map(str, range(150))) for _ in range(2)], int)
    assert (kept[0] == kept[1]).all()
    assert len(set(kept[0])) == 100
    # All 150 have the same chance: the mean of 100 of them, within 5 deviations.
    assert abs(kept[0].mean() - 74.5) < 5 * np.sqrt(150**2 / 12 / 100)
    assert text._sample(iter("abc")) == ["a", "b", "c"]


@pytest.mark.slow
def test_the_papers_size_and_length(tmp_path):
    """16,000 pieces, 128 ids a row, what is longer cut and said to be."""
    rng = np.random.default_rng(0)
    sounds = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    words = ["".join(rng.choice(sounds, n)) for n in rng.integers(2, 5, 20_000)]
    captions = [" ".join(rng.choice(words, 8)) for _ in range(20_000)]
    train_vocabulary(captions, tmp_path / "full.model")
    full = Vocabulary.from_file(tmp_path / "full.model")
    assert full.size == 16_000
    report = full.encode_report([" ".join(words[:200]), captions[0], ""])
    assert report["ids"].shape == (3, 128)
    assert report["ids"].max() < 16_000
    assert report["truncated"].tolist() == [True, False, False]
    assert report["num_tokens"][0] >= 202
    assert report["ids"][0, -1] == EOS
    assert report["num_tokens"][2] == 2


def test_training_is_quiet(tmp_path, capfd):
    train_vocabulary(CAPTIONS, tmp_path / "vocabulary.model")
    assert capfd.readouterr() == ("", "")


def test_too_small_a_size_is_refused_and_the_one_named_will_do(tmp_path):
    path = tmp_path / "none.model"
    with pytest.raises(ValueError, match=r"Received: size=100") as refused:
        train_vocabulary(CAPTIONS, path, size=100)
    assert not path.exists()
    least = int(re.search(r"must be (\d+) or more", str(refused.value))[1])
    with pytest.raises(ValueError, match=f"must be {least} or more"):
        train_vocabulary(CAPTIONS, path, size=least - 1)
    train_vocabulary(CAPTIONS, path, size=least)


@pytest.mark.parametrize("captions", [[], ["", ""]])
def test_no_captions_are_refused(captions, tmp_path):
    with pytest.raises(ValueError, match="`captions`"):
        train_vocabulary(captions, tmp_path / "none.model")


def test_captions_that_are_no_strings_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"str or bytes in UTF-8\. Received: 7"):
        train_vocabulary(["red apple", 7], tmp_path / "none.model")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.model.*train vocab"):
        Vocabulary.from_file(tmp_path / "nothing.model")


@pytest.mark.parametrize("content", [b"", b"no model", b"\0" * 100, "half"])
def test_a_file_that_is_no_model_is_named(content, path, tmp_path):
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    (tmp_path / "broken.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.model.*no SentencePiece model"):
        Vocabulary.from_file(tmp_path / "broken.model")


def test_other_special_ids_are_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS),
        model_prefix=os.fspath(tmp_path / "theirs"),
        vocab_size=300,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match=r"theirs\.model.*Received: -1, 0, 1, 2"):
        Vocabulary.from_file(tmp_path / "theirs.model")


def test_a_single_string_is_refused(vocabulary):
    with pytest.raises(TypeError, match="list of strings"):
        vocabulary.encode("red apple")
    with pytest.raises(ValueError, match=r"shape \(batch,\)"):
        vocabulary.encode_tensor(tf.constant("red apple"))


def test_other_things_than_strings_are_refused(vocabulary):
    with pytest.raises(TypeError, match=r"str or bytes in UTF-8\. Received: 7"):
        vocabulary.encode(["red apple", 7])


def test_too_short_a_length_is_refused(vocabulary):
    with pytest.raises(ValueError, match="at least 3"):
        Vocabulary(vocabulary.model_bytes, length=2)
