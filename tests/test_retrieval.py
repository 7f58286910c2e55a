"""Figures of text control equal their definitions; a run goes on where it stopped."""

import itertools
import json
import types

import keras
import numpy as np
import pytest
from PIL import Image

from keras_parti.evaluation import Pictures, evaluate_reconstruction, evaluate_retrieval
from keras_parti.evaluation.control import (
    chance,
    hits,
    interval,
    shuffled_hits,
    weighted_hits,
)
from keras_parti.evaluation.retrieval import choose_queries
from keras_parti.evaluation.samples import best_of_weights
from keras_parti.pixels import to_floats

STYLES = ("google", "twitter", "fluent")
TONES = ("", "light skin tone", "dark skin tone")


def make_set(count, size=10, seed=3):
    """Random pictures of `count` names in three styles; every second has two tones."""
    rng = np.random.default_rng(seed)
    arrays = {key: [] for key in ("image", "captions", "synonyms", "name", "style")}
    arrays["tone"] = []
    for number, style in itertools.product(range(count), STYLES):
        for tone in TONES if number % 2 else TONES[:1]:
            name = f"thing {number}"
            arrays["image"].append(rng.integers(0, 256, (size, size, 3), np.uint8))
            arrays["captions"].append([f"{name} {tone} in {style} style", "another"])
            arrays["synonyms"].append([f"object {number} {tone} in {style} style"])
            arrays["name"].append(name)
            arrays["style"].append(style)
            arrays["tone"].append(tone)
    return Pictures.from_arrays(arrays)


# Figures


def test_hits_are_what_the_nearest_pictures_are():
    gallery = make_set(7)
    where = {
        key: index
        for index, key in enumerate(
            zip(gallery.names, gallery.styles, gallery.tones, strict=True)
        )
    }
    wanted = gallery.take([where["thing 1", "google", "dark skin tone"]] * 2)
    others = [where[f"thing {n}", "fluent", ""] for n in (0, 2, 4, 6)]
    found = np.array(
        [
            [where["thing 1", "twitter", "dark skin tone"], *others],
            [*others, where["thing 1", "google", ""]],
        ]
    )
    values = hits(found, gallery, wanted)
    assert values["name@1"].tolist() == [1, 0]
    assert values["name@5"].tolist() == [1, 1]
    assert values["style"].tolist() == [0, 0]
    assert values["tone"].tolist() == [1, 0]
    toneless = hits(found[:1], gallery, gallery.take([where["thing 0", "google", ""]]))
    assert np.isnan(toneless["tone"]).all()


def test_chance_is_the_mean_over_all_orders():
    gallery = make_set(2).take([0, 1, 3, 4, 5, 6, 7])
    wanted = gallery.take([0, 2, 3])
    orders = np.array(list(itertools.permutations(range(7), 5)))
    for row in range(3):
        one = wanted.take([row] * len(orders))
        brute = {key: x.mean() for key, x in hits(orders, gallery, one).items()}
        for key, values in chance(gallery, wanted).items():
            assert values[row] == pytest.approx(brute[key], nan_ok=True), key


def test_chance_of_five_is_certain_where_fewer_pictures_are_wrong():
    gallery = make_set(2).take([0, 1, 3, 4])
    assert chance(gallery, gallery)["name@5"].tolist() == [1.0] * 4


def test_shuffled_is_the_mean_over_all_other_prompts():
    gallery = make_set(5)
    wanted = gallery.take([0, 4, 5, 13])
    rng = np.random.default_rng(5)
    found = rng.integers(len(gallery), size=(4, 5))
    values = shuffled_hits(found, gallery, wanted)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        each = hits(found[[i] * 3], gallery, wanted.take(others))
        for key in ("name@1", "name@5", "style"):
            assert values[key][i] == pytest.approx(each[key].mean())
        tones = each["tone"][~np.isnan(each["tone"])]
        assert values["tone"][i] == pytest.approx(tones.mean())


@pytest.mark.parametrize("best_of", [1, 2, 3, 6, 7])
def test_best_of_weights_are_the_shares_over_all_choices(best_of):
    counts = np.zeros(7)
    for choice in itertools.combinations(range(7), best_of):
        counts[min(choice)] += 1
    np.testing.assert_allclose(best_of_weights(7, best_of), counts / counts.sum())


def test_best_of_more_than_were_drawn_is_refused():
    with pytest.raises(ValueError, match=r"1 to `num_samples`, 7.*best_of=8"):
        best_of_weights(7, 8)


def test_weighted_hits_are_means_over_samples_then_prompts():
    gallery = make_set(5)
    wanted = gallery.take([0, 1])
    right, wrong = [0] * 5, [len(gallery) - 1] * 5
    found = np.array([right, wrong, wrong, wrong, wrong, right])
    values = weighted_hits(found, gallery, wanted, np.array([0.5, 0.3, 0.2]))
    assert values["name@1"] == pytest.approx((0.5 + 0.2) / 2)
    assert "tone" not in values


def test_the_interval_is_that_of_a_share():
    values = np.repeat([0.0, 1.0], [30, 70])
    low, high = interval(values, seed=0)
    spread = 1.96 * np.sqrt(0.7 * 0.3 / 100)
    assert low == pytest.approx(0.7 - spread, abs=0.015)
    assert high == pytest.approx(0.7 + spread, abs=0.015)


# A whole run


class Painter:
    """Answers a prompt with its true picture, or another, at a given rate."""

    def __init__(self, pictures, rate, fail_after=None):
        self.pictures, self.rate, self.left = pictures, rate, fail_after
        self.calls = []
        self.where = {prompt: i for i, prompt in enumerate(pictures.prompts)}
        for index, (synonym,) in enumerate(pictures.synonyms):
            self.where[synonym] = index

    def __call__(self, prompts, num_samples, keep, guidance_scale, seed):
        self.calls.append((tuple(prompts), guidance_scale, seed))
        if self.left is not None and len(self.calls) > self.left:
            raise KeyboardInterrupt
        rng = np.random.default_rng(seed)
        (prompt,) = prompts
        right = rng.random(num_samples) < self.rate
        chosen = np.where(
            right, self.where[prompt], rng.integers(len(self.pictures), size=keep)
        )
        score = right + 0.1 * rng.random(keep)
        return {"images": self.pictures.images[chosen][None], "score": score[None]}


@pytest.fixture
def splits():
    whole = make_set(20)
    held = np.arange(len(whole)) % 9 == 4
    tones = held & (whole.tones != "")
    return {
        "train": whole.take(np.flatnonzero(~held)),
        "heldout_style": whole.take(np.flatnonzero(held & ~tones)),
        "heldout_tone": whole.take(np.flatnonzero(tones)),
    }


def run(painter, splits, out, **options):
    options = {"features": ("pixels",), "num_queries": 30, "num_samples": 4, **options}
    options = {"best_of": (1, 4), "num_guidance_queries": 5, **options}
    return evaluate_retrieval(painter, lambda x: x, splits, out, **options)


def test_a_perfect_painter_reaches_the_ceiling_and_shuffled_prompts_chance(
    splits, tmp_path
):
    painter = Painter(Pictures.join(list(splits.values())), rate=1.0)
    results = run(painter, splits, tmp_path)
    sets = results["features"]["pixels"]["sets"]
    assert set(sets) == {"train", "heldout_style", "heldout_tone", "synonyms"}
    for measures in sets.values():
        for figures in measures.values():
            assert figures["value"] == figures["ceiling"] == figures["of_ceiling"] == 1
    name = sets["train"]["name@1"]
    assert name["shuffled"] == pytest.approx(name["chance"], abs=0.03)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    table = (tmp_path / "table.md").read_text()
    assert "| training captions (30) | right name, nearest | 100.0" in table
    for name in (*sets, "guidance"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_a_painter_that_does_not_read_falls_to_chance(splits, tmp_path):
    painter = Painter(Pictures.join(list(splits.values())), rate=0.0)
    results = run(painter, splits, tmp_path, num_queries=100, guidance_scales=())
    for key, spread in (("name@1", 0.1), ("style", 0.15)):
        figures = results["features"]["pixels"]["sets"]["train"][key]
        assert figures["value"] == pytest.approx(figures["chance"], abs=spread)


def test_more_samples_to_choose_from_are_better(splits, tmp_path):
    painter = Painter(Pictures.join(list(splits.values())), rate=0.5)
    options = {"guidance_scales": (1.5,), "num_guidance_queries": 30}
    results = run(painter, splits, tmp_path, **options)["features"]["pixels"]
    one, four = (row for row in results["guidance"] if row["set"] == "train")
    assert one["name@1"] == pytest.approx(0.5, abs=0.12)
    assert four["name@1"] == pytest.approx(1 - 0.5**4, abs=0.12)
    # All samples were drawn once: best of 4 is the figure of the main table.
    assert four["name@1"] == results["sets"]["train"]["name@1"]["value"]


def test_a_run_that_was_killed_goes_on_where_it_was(splits, tmp_path):
    pictures = Pictures.join(list(splits.values()))
    with pytest.raises(KeyboardInterrupt):
        run(Painter(pictures, 0.5, fail_after=11), splits, tmp_path / "a")
    second, whole = Painter(pictures, 0.5), Painter(pictures, 0.5)
    results = run(second, splits, tmp_path / "a")
    assert results == run(whole, splits, tmp_path / "b")
    assert second.calls == whole.calls[11:]
    third = Painter(pictures, 0.5)
    run(third, splits, tmp_path / "a")
    assert third.calls == []
    run(third, splits, tmp_path / "a", model_name="another")
    assert third.calls == whole.calls


def test_each_prompt_has_seeds_of_its_own(splits, tmp_path):
    painter = Painter(splits["train"], 1.0)
    run(painter, {"train": splits["train"]}, tmp_path, guidance_scales=())
    seeds = sorted(seed for _, _, seed in painter.calls)
    assert min(np.diff(seeds)) >= 4


def test_queries_are_a_fixed_choice_without_repeats(splits):
    a, b = (choose_queries(splits, 17, seed=5) for _ in range(2))
    assert a["train"].prompts.tolist() == b["train"].prompts.tolist()
    assert len(set(a["train"].prompts)) == 17
    assert all(p.startswith("object") for p in a["synonyms"].prompts)
    other = choose_queries(splits, 17, seed=6)
    assert other["train"].prompts.tolist() != a["train"].prompts.tolist()


def test_larger_pictures_than_those_of_the_set_are_shown(splits, tmp_path):
    train = splits["train"]
    painter = Painter(train, 1.0)

    def double(*args, **kwargs):
        drawn = painter(*args, **kwargs)
        images = drawn["images"].repeat(2, axis=2).repeat(2, axis=3)
        return {**drawn, "images": images}

    results = run(double, {"train": train}, tmp_path, guidance_scales=())
    assert results["features"]["pixels"]["sets"]["train"]["name@1"]["value"] == 1.0


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ({"images": np.zeros((1, 4, 10, 10, 3)), "score": np.zeros((1, 4))}, "float64"),
        (
            {
                "images": np.zeros((1, 3, 10, 10, 3), np.uint8),
                "score": np.zeros((1, 3)),
            },
            "asked for 4 pictures of 1 prompt. Received: 3 of 1",
        ),
    ],
)
def test_a_painter_that_returns_something_else_is_told(
    splits, tmp_path, drawn, message
):
    with pytest.raises(ValueError, match=message):
        run(lambda *args, **kwargs: drawn, splits, tmp_path)


def test_mistaken_arguments_are_named(splits, tmp_path):
    with pytest.raises(ValueError, match=r"joined, image, pixels.*'clip'"):
        run(None, splits, tmp_path, features=("clip",))
    with pytest.raises(ValueError, match=r"must have `train`"):
        run(None, {"validation": splits["train"]}, tmp_path)
    with pytest.raises(ValueError, match="best_of=16"):
        run(None, splits, tmp_path, best_of=(16,))


# Picture sets


def test_pictures_of_examples_are_their_bytes_and_canonical_captions():
    example = {
        "image": np.full((5, 7, 3), 51 / 255, np.float32),
        "captions": np.array([b"goat in google style", b"a goat"], object),
        "synonyms": np.array([], object),
        "name": b"goat",
        "style": b"google",
        "tone": b"",
    }
    pictures = Pictures.from_examples([example])
    assert pictures.images.dtype == np.uint8
    assert (pictures.images == 51).all()
    assert pictures.prompts.tolist() == ["goat in google style"]
    assert pictures.synonyms == [[]]
    assert pictures.names.tolist() == ["goat"]


def test_fields_of_unequal_length_are_refused():
    some = make_set(2)
    with pytest.raises(ValueError, match="differ in length"):
        Pictures(some.images[:1], some.prompts, [], some.names, some.styles, some.tones)


# Tokenizers


class Rounding:
    """A tokenizer that keeps the upper two bits of every value."""

    config = types.SimpleNamespace(num_codes=5)

    def encode(self, images):
        self.shape = images.shape
        levels = np.rint(np.asarray(images) * 255.0).astype(np.int32) // 64
        return levels.reshape(len(images), -1)

    def decode(self, ids):
        return (ids.reshape(self.shape) * 64 + 32) / 255.0


def test_reconstruction_figures_are_means_over_pictures(tmp_path):
    images = make_set(4, size=32).images[:7]
    sizes = []

    class Worst(keras.Model):  # a measure in the place of LPIPS
        def call(self, one, other):
            sizes.append((one.shape[0], other.shape[0]))
            return keras.ops.max(keras.ops.abs(one - other), axis=(1, 2, 3))

    results = evaluate_reconstruction(
        Rounding(), images, tmp_path, batch_size=3, perceptual=Worst()
    )
    x = images / 255.0
    copies = {"tokenizer": (images // 64 * 64 + 32) / 255.0}
    copies["mean"] = x.mean(axis=(1, 2), keepdims=True)
    copies["white"] = 1.0
    for key, copy in copies.items():
        expected = -10 * np.log10(((x - copy) ** 2).mean(axis=(1, 2, 3)))
        assert results["psnr"][key] == pytest.approx(expected.mean(), rel=1e-5)
        expected = np.abs(x - copy).max(axis=(1, 2, 3)).mean()
        assert results["lpips"][key] == pytest.approx(expected, rel=1e-5)
    assert set(sizes) == {(1, 4)}  # an original is looked at once, with all its copies
    error = x - copies["tokenizer"]
    assert results["l1"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert results["l2"] == pytest.approx(np.square(error).mean(), rel=1e-5)
    assert results["ssim"]["mean"] < results["ssim"]["tokenizer"] < 1
    assert results["usage"] == pytest.approx(4 / 5)
    p = np.bincount((images // 64).ravel()) / images.size
    assert results["perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert results["ids_per_picture"] == 32 * 32 * 3
    assert json.loads((tmp_path / "results.json").read_text()) == results
    table = (tmp_path / "table.md").read_text()
    assert "a 16 x 16 thumbnail" in table
    assert f"{results['lpips']['thumbnail']:.4f}" in table
    assert (tmp_path / "strip.png").stat().st_size > 1000
    again = evaluate_reconstruction(Rounding(), to_floats(images), tmp_path / "floats")
    assert again["psnr"] == pytest.approx(results["psnr"], rel=1e-6)
    assert "lpips" not in again


def test_the_strip_shows_the_places_asked_for_in_their_order(tmp_path):
    images = make_set(4, size=32).images[:7]
    for name, shown in (("a", [5, 2]), ("b", [2, 5]), ("c", [5, 2])):
        evaluate_reconstruction(Rounding(), images, tmp_path / name, shown=shown)
    a, b, c = (np.asarray(Image.open(tmp_path / name / "strip.png")) for name in "abc")
    assert a.shape == b.shape
    assert (a != b).any()
    np.testing.assert_array_equal(a, c)
    for wrong in ([7], [-1], []):
        with pytest.raises(ValueError, match=r"`shown` must be places in \[0, 7\)"):
            evaluate_reconstruction(Rounding(), images, tmp_path, shown=wrong)


def test_a_thumbnail_keeps_what_is_flat():
    from keras_parti.evaluation.reconstruction import thumbnail

    flat = np.full((2, 32, 32, 3), 0.3, np.float32)
    np.testing.assert_allclose(thumbnail(flat), flat, atol=1e-6)


def test_a_tokenizer_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`pictures` must be .* at least one picture"):
        evaluate_reconstruction(Rounding(), np.zeros((0, 8, 8, 3), np.uint8), tmp_path)


def test_the_chain_itself_can_be_measured(tmp_path):
    from keras_parti.models.parti import Parti
    from keras_parti.models.text_to_image import TextToImage
    from keras_parti.models.vit_vqgan import ViTVQGAN
    from keras_parti.text import Vocabulary, train_vocabulary

    pictures = make_set(3, size=12)
    train_vocabulary([*pictures.prompts, "twelve more words"], tmp_path / "v", size=295)
    chain = TextToImage(
        ViTVQGAN.from_preset("vit_vqgan_tiny"),
        Parti.from_preset("parti_tiny"),
        Vocabulary.from_file(tmp_path / "v", length=11),
    )
    options = {"num_queries": 2, "guidance_scales": (1.0,), "features": ("pixels",)}
    results = evaluate_retrieval(
        chain.generate,
        chain.tokenizer.reconstruct,
        {"train": pictures},
        tmp_path / "a",
        num_samples=2,
        best_of=(2,),
        **options,
    )
    assert 0 <= results["features"]["pixels"]["sets"]["train"]["style"]["value"] <= 1
    results = evaluate_reconstruction(chain.tokenizer, pictures, tmp_path / "b")
    assert results["ids_per_picture"] == 9
    assert 0 < results["usage"] <= 1
