"""The chain with a reranker and an upsampler: what is chosen, enlarged, served."""

import numpy as np
import pytest
import tensorflow as tf
from far_weights import scatter_matrices
from small_chain import KEEP, PROMPTS, SAMPLES, assert_same, strings

from keras_parti.models import WDSR, CoCa, TextToImage
from keras_parti.serving.client import Client
from keras_parti.serving.export import export
from keras_parti.serving.pictures import read_picture, write_picture
from keras_parti.serving.server import Server


def far_from_start(model):
    scatter_matrices(model, scale=0.3, seed=7)
    return model


def with_parts(chain, **parts):
    return TextToImage(chain.tokenizer, chain.parti, chain.vocabulary, **parts)


@pytest.fixture(scope="module")
def whole_chain(small_chain):
    # Pictures are made smaller for it, and texts read shorter.
    reranker = CoCa.from_preset("coca_tiny", image_size=8, text_length=7).reranker()
    return with_parts(
        small_chain,
        reranker=far_from_start(reranker),
        upsampler=far_from_start(WDSR.from_preset("wdsr_tiny")),
    )


@pytest.fixture(scope="module")
def client(whole_chain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "whole"
    version = export(whole_chain, folder, SAMPLES, KEEP)
    card = (version / "card.md").read_text()
    assert "by CoCa's cosine" in card
    assert "enlarged to 24×24 pixels, or to a `size` of 12, 24, 48 |" in card
    with (
        Server(folder, port=0, warm_up=False) as server,
        Client(server.address, model="whole", best=(SAMPLES, KEEP)) as client,
    ):
        yield client


def pictures(count, side=12):
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, side, side, 3)).astype("uint8")


def test_the_reranker_chooses_among_partis_pictures(small_chain, whole_chain):
    some = {"num_samples": SAMPLES, "seed": 5}
    drawn = small_chain.generate(PROMPTS, keep=SAMPLES, **some)
    ranked = whole_chain.generate(PROMPTS, keep=SAMPLES, **some)
    for row, prompt in enumerate(PROMPTS):
        assert {ids.tobytes() for ids in ranked["ids"][row]} == {
            ids.tobytes() for ids in drawn["ids"][row]
        }
        scores = whole_chain.score(ranked["images"][row], [prompt] * SAMPLES)
        np.testing.assert_allclose(ranked["score"][row], scores, atol=1e-5)
    assert (np.diff(ranked["score"], axis=1) <= 0).all()
    assert np.abs(ranked["score"]).max() <= 1
    best = whole_chain.generate(PROMPTS, keep=KEEP, **some)
    for name in ("images", "ids", "score"):
        np.testing.assert_array_equal(best[name], ranked[name][:, :KEEP])


def test_a_score_is_the_rerankers_of_the_resized_picture(whole_chain):
    images, reranker = pictures(3), whole_chain.reranker
    small = tf.image.resize(images / np.float32(255), (8, 8), antialias=True)
    vocabulary = whole_chain.reader
    assert vocabulary.length == 7
    expected = reranker.score(small, vocabulary.encode(PROMPTS))
    np.testing.assert_allclose(whole_chain.score(images, PROMPTS), expected, atol=1e-5)


def test_pictures_are_enlarged_once_or_twice(whole_chain):
    assert whole_chain.sizes == (12, 24, 48)
    once, twice = (
        whole_chain.generate(PROMPTS, size=s, num_samples=1) for s in (24, 48)
    )
    native = whole_chain.generate(PROMPTS, num_samples=1)["images"]
    upsampler = whole_chain.upsampler
    for expected, found in ((native, once), (once["images"], twice)):
        floats = expected[:, 0] / np.float32(255)
        large = np.rint(np.array(upsampler.upscale(floats)) * 255)
        # Folded kernels round otherwise: to the next of 255 steps at times.
        difference = large - found["images"][:, 0]
        assert np.abs(difference).max() <= 1
        assert (difference == 0).mean() > 0.99
    np.testing.assert_array_equal(whole_chain.upscale(native, 24), once["images"])
    np.testing.assert_array_equal(whole_chain.upscale(native), native)


def test_a_folder_holds_the_parts_that_there_are(small_chain, whole_chain, tmp_path):
    whole_chain.save(tmp_path)
    again = TextToImage.load(tmp_path)
    some = {"num_samples": 3, "keep": 2, "size": 24}
    assert_same(again.generate(PROMPTS, **some), whole_chain.generate(PROMPTS, **some))
    small_chain.save(tmp_path)
    again = TextToImage.load(tmp_path)
    assert (again.reranker, again.upsampler) == (None, None)


@pytest.mark.parametrize(
    "options",
    [{"num_samples": 1}, {"num_samples": SAMPLES, "keep": KEEP, "seed": 11}],
)
def test_served_pictures_and_scores_are_the_local_ones(whole_chain, client, options):
    served = client.generate(PROMPTS, **options)
    assert_same(served, whole_chain.generate(PROMPTS, **options))


def test_served_scores_and_large_pictures_are_the_local_ones(whole_chain, client):
    images = pictures(3)
    np.testing.assert_allclose(
        client.score(images, PROMPTS), whole_chain.score(images, PROMPTS), atol=1e-5
    )
    # In one step of 255 a sum of another order may round to the next.
    large = client.upscale(images).astype(int)
    np.testing.assert_allclose(large, whole_chain.upscale(images, 24), atol=1)
    large = client.upscale(images, 48).astype(int)
    np.testing.assert_allclose(large, whole_chain.upscale(images, 48), atol=2)
    np.testing.assert_array_equal(client.upscale(images, 12), images)


def test_sizes_may_be_mixed_in_a_request(client):
    images = pictures(3)
    files = strings(*map(write_picture, images))
    sizes = [48, 12, 24]
    got = client.predict("upscale", {"image_bytes": files, "size": np.int32(sizes)})
    for content, image, size in zip(got["image_bytes"], images, sizes, strict=True):
        alone = client.upscale(image[None], size)[0]
        np.testing.assert_array_equal(read_picture(content), alone)


def test_a_served_draw_may_be_enlarged(whole_chain, client):
    some = {"num_samples": 3, "keep": 2, "size": 24}
    served, local = (
        client.generate(PROMPTS, **some),
        whole_chain.generate(PROMPTS, **some),
    )
    np.testing.assert_array_equal(served["ids"], local["ids"])
    np.testing.assert_allclose(
        served["images"].astype(int), local["images"].astype(int), atol=1
    )


def test_bad_requests_are_named(client):
    with pytest.raises(ValueError, match="must be equally many"):
        client.predict(
            "score",
            {"image_bytes": strings(b"x", b"y", b"z"), "prompt": strings(b"a", b"b")},
        )
    with pytest.raises(ValueError, match=r"size must be one of 12, 24, 48.*36"):
        client.generate(["a"], size=36, num_samples=1, guidance_scale=31)
    with pytest.raises(ValueError, match="must hold PNG or JPEG"):
        client.score([b"no picture"], ["a"])


def test_what_does_not_fit_is_said(small_chain, whole_chain):
    with pytest.raises(ValueError, match="`score` needs a `reranker`"):
        small_chain.score(pictures(1), ["a"])
    with pytest.raises(ValueError, match=r"`size` must be one of \(12,\)"):
        small_chain.generate(PROMPTS, size=24, num_samples=1)
    with pytest.raises(ValueError, match=r"must be one of \(12, 24, 48\).*size=36"):
        whole_chain.upscale(pictures(1), 36)
    with pytest.raises(ValueError, match=r"uint8 \(batch, 12, 12, 3\)"):
        whole_chain.upscale(pictures(1, side=5), 24)
    with pytest.raises(ValueError, match=r"one at least\. Received: 2 and 1"):
        whole_chain.score(pictures(2), ["a"])
    with pytest.raises(ValueError, match=r"one at least\. Received: 0 and 0"):
        whole_chain.score(pictures(0), [])
    with pytest.raises(ValueError, match="uint8"):
        whole_chain.score(np.zeros((1, 12, 12, 3)), ["a"])
    few = CoCa.from_preset("coca_tiny", text_vocab_size=7)
    with pytest.raises(ValueError, match="`text_vocab_size` of `reranker`"):
        with_parts(small_chain, reranker=few)
