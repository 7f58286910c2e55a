"""Recall of captions and pictures, and which of several pictures is chosen."""

import itertools
from unittest import mock

import numpy as np
import pytest

from keras_parti.evaluation import Pictures, evaluate_matching, matching
from keras_parti.evaluation.matching import choices, recalls
from keras_parti.evaluation.nearest import Index
from keras_parti.models import CoCa
from keras_parti.models.choosing import same_texts, score_samples, similarities

COUNT, SAMPLES = 7, 3


def pictures(count, seed, style="google"):
    random = np.random.default_rng(seed)
    names = np.array([f"thing {i}" for i in range(count)])
    return Pictures(
        random.integers(0, 256, (count, 12, 12, 3)).astype("uint8"),
        np.array([f"{name} in {style} style" for name in names]),
        [[] for _ in names],
        names,
        np.array([style] * count),
        np.array([""] * count),
    )


class Letters:
    """Stands in for a vocabulary: a letter is an id."""

    def encode(self, prompts):
        rows = np.zeros((len(prompts), 11), "int32")
        for row, prompt in zip(rows, prompts, strict=True):
            row[:9] = [2, *(4 + ord(c) % 200 for c in prompt[:7]), 3]
        return rows


@pytest.fixture(scope="module")
def coca():
    model = CoCa.from_preset("coca_tiny").reranker()
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def test_recall_is_counted_both_ways_beside_chance():
    scores = np.eye(COUNT) + np.array([[5.0] + [0.0] * (COUNT - 1)] * COUNT)
    # Every picture finds the first text first, and its own then.
    figures = recalls(scores, np.eye(COUNT, dtype=bool))
    assert figures["image_to_text@1"] == pytest.approx(1 / COUNT)
    assert figures["image_to_text@5"] == 1.0
    assert figures["text_to_image@1"] == 1.0
    assert figures["chance@5"] == pytest.approx(5 / COUNT)
    assert figures["queries"] == COUNT


def test_of_equal_texts_each_is_right():
    right = same_texts(["a cat", "a dog", "a cat", "a"])
    np.testing.assert_array_equal(right.sum(axis=1), [2, 1, 2, 1])
    assert right[0, 2]
    assert right[2, 0]
    # Texts that are equal have equal columns, and the last picture finds none.
    scores = np.array([[3, 1, 3, 0], [2, 4, 2, 1], [2, 1, 2, 0], [9, 0, 9, 8]])
    figures = recalls(scores, right)
    assert figures["image_to_text@1"] == 0.75
    # The first text finds the last picture before its own, as does its equal.
    assert figures["text_to_image@1"] == 0.5
    assert figures["chance@1"] == pytest.approx((2 + 1 + 2 + 1) / 4 / 4)
    assert figures["chance@5"] == 1.0
    # As drawn one by one, of all orders of four.
    orders = list(itertools.permutations(range(4), 2))
    found = np.mean([[right[row, list(o)].any() for o in orders] for row in range(4)])
    with mock.patch.object(matching, "COUNTS", (2,)):
        assert recalls(scores, right)["chance@2"] == pytest.approx(found)


def test_a_choice_is_that_of_the_highest_rank():
    right = {"name": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])}
    rank = np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
    places = np.array([[4, 1, 9], [2, 2, 16], [3, 1, 1]])
    figures = choices(right, places, {"a": rank})
    found = {choice: at["name"]["value"] for choice, at in figures.items()}
    assert found == pytest.approx({"random": 1 / 3, "a": 1 / 3, "oracle": 2 / 3})
    found = {choice: at["place"]["value"] for choice, at in figures.items()}
    mean = (4 * 9 * 2 * 2 * 16 * 3) ** (1 / 9)
    assert found == pytest.approx(
        {"random": mean, "a": 2 ** (1 / 3), "oracle": 2 ** (1 / 3)}
    )
    gain = figures["a"]["place"]["gain"]
    assert gain["value"] == pytest.approx(2 ** (1 / 3) / mean)
    assert gain["low"] < gain["value"] < gain["high"]


def test_what_a_choice_gains_is_compared_prompt_by_prompt():
    # Prompts differ much, samples of a prompt little: one of the four is always better.
    prompts = np.repeat([0.0, 1.0], 50)
    right = np.stack([prompts, prompts, prompts, np.ones(100)], axis=1)
    ranks = {"best": np.arange(4.0) * np.ones((100, 1)), "any": 1 - right}
    figures = choices({"name": right}, np.ones(right.shape), ranks)
    found = {choice: at["name"] for choice, at in figures.items()}
    assert found["best"]["value"] == found["oracle"]["value"] == 1.0
    gain = found["best"]["gain"]
    assert gain["value"] == pytest.approx(found["best"]["value"] - right.mean())
    # A mean of 50 × 3/4 and 50 × 0: the deviation over prompts is 3/8, and of means a
    # tenth of that.
    assert gain["value"] - gain["low"] == pytest.approx(1.96 * 0.0375, rel=0.05)
    assert gain["high"] - gain["value"] == pytest.approx(1.96 * 0.0375, rel=0.05)
    assert found["any"]["gain"]["high"] < 0  # where it can, it takes a wrong one
    assert found["random"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_places_count_what_is_as_near_as_the_wanted_picture():
    gallery = pictures(COUNT, 5)
    index = Index(gallery, ("pixels",))
    wanted = np.array([3, 0, 6])
    assert index.places(gallery.images[wanted], wanted)["pixels"].tolist() == [1, 1, 1]
    shown = gallery.images[[2, 2, 2]]
    found = index.search(shown)["pixels"][0]
    assert found[0] == 2
    assert index.places(shown, found[:3])["pixels"].tolist() == [1, 2, 3]


def test_prompts_of_splits_that_are_not_there_are_refused(coca, tmp_path):
    splits = {"train": pictures(COUNT, 3)}
    with pytest.raises(ValueError, match=r"style.*among the splits\. Received: train"):
        evaluate_matching(coca, Letters(), splits, tmp_path, generate=print)


def test_similarities_do_not_depend_on_batches(coca):
    images = pictures(COUNT, 2).images
    ids = Letters().encode([f"{i}" * 7 for i in range(5)])
    whole = similarities(coca, images, ids)
    assert whole.shape == (COUNT, 5)
    np.testing.assert_allclose(similarities(coca, images, ids, 2), whole, atol=1e-5)
    floats = images / np.float32(255)
    np.testing.assert_allclose(coca.score(floats[:5], ids), np.diag(whole), atol=1e-5)
    several = score_samples(coca, floats[:6], ids[:2])  # three for each text
    expected = [*whole[:3, 0], *whole[3:6, 1]]
    np.testing.assert_allclose(several, expected, atol=1e-5)


def test_the_chosen_pictures_are_those_of_the_highest_cosine(coca, tmp_path):
    splits = {"train": pictures(COUNT, 3), "heldout_style": pictures(5, 4, "fluent")}
    wanted = splits["heldout_style"]

    def generate(prompts, num_samples, keep, guidance_scale, seed):
        (row,) = (list(wanted.prompts).index(prompt) for prompt in prompts)
        # The true picture is one of them, of the least likelihood.
        images = np.stack([np.roll(wanted.images[row], i, 0) for i in range(SAMPLES)])
        return {"images": images[None], "score": np.arange(SAMPLES)[None]}

    results = evaluate_matching(
        coca,
        Letters(),
        splits,
        tmp_path,
        generate=generate,
        features="pixels",
        num_samples=SAMPLES,
    )
    chosen = results["choice"]
    assert chosen["queries"] == 5
    assert chosen["oracle"]["both"]["value"] == 1.0
    assert chosen["oracle"]["place"]["value"] == 1.0
    assert list(results["recall"]) == ["heldout_style"]
    first = 0
    for row, prompt in enumerate(wanted.prompts):
        images = np.stack([np.roll(wanted.images[row], i, 0) for i in range(SAMPLES)])
        scores = similarities(coca, images, Letters().encode([prompt]))[:, 0]
        first += scores.argmax() == 0
    assert (
        chosen["coca"]["both"]["value"] >= first / 5
    )  # a moved picture may be right, too
    table = (tmp_path / "table.md").read_text()
    gain = chosen["coca"]["both"]["gain"]
    (gains,) = [line for line in table.splitlines() if "CoCa, beside a random" in line]
    assert f"| {100 * gain['value']:+.1f} (" in gains
    assert "text → picture @5" in table
