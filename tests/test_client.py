"""What a client asks, and what it makes of the answers; of both kinds of client."""

import numpy as np
import pytest
import stand_in
from clients import KINDS, NAMES

from keras_parti.serving.client import AsyncClient, Client
from keras_parti.serving.pictures import read_picture, write_picture
from keras_parti.serving.rows import BYTES_PER_REQUEST, ROWS_PER_REQUEST, chunks

BEST = (stand_in.SAMPLES, stand_in.KEEP)
SIGNATURES = ["decode", "encode", "generate", "generate_best"]
PROMPTS = ["a fox", "", "Füchse, 狐, 🦊"]


@pytest.fixture(scope="module")
def address(stand_ins):
    with stand_in.served(stand_ins, "toy") as address:
        yield address


@pytest.fixture(scope="module", params=KINDS, ids=NAMES)
def client(address, request):
    with request.param(address, model="toy", best=BEST) as client:
        yield client


def toy_ids(prompt, seed):
    """The stand-in's rule, in NumPy."""
    steps = 7 * np.arange(stand_in.LENGTH)
    return (len(prompt.encode()) + seed + steps) % stand_in.NUM_CODES


def test_generate_asks_for_each_prompt_with_the_seed(client):
    drawn = client.generate(PROMPTS, seed=13, num_samples=1)
    ids = np.array([[toy_ids(prompt, 13)] for prompt in PROMPTS])
    np.testing.assert_array_equal(drawn["ids"], ids)
    np.testing.assert_array_equal(drawn["score"], ids[:, :, 0])
    side = stand_in.SIDE
    assert drawn["images"].shape == (3, 1, side, side, 3)
    assert drawn["images"].dtype == np.uint8
    grey = np.broadcast_to(ids[:, :, :1, None, None], drawn["images"].shape)
    np.testing.assert_array_equal(drawn["images"], grey)
    lengths = [len(prompt.encode()) for prompt in PROMPTS]
    np.testing.assert_array_equal(drawn["prompt_tokens"], lengths)
    np.testing.assert_array_equal(drawn["truncated"], np.array(lengths) > 20)


# 90 lets the rule wrap around, so that scores do not just rise with the seed.
@pytest.mark.parametrize("seed", [0, 90, -5])
def test_the_servers_choice_is_the_clients(client, seed):
    """`generate_best` is the best rows of `generate` with the seeds that follow."""
    served = client.generate(PROMPTS, *BEST, seed=seed)
    rows = Client(client.address, model="toy", best=(1, 1)).generate(
        PROMPTS, *BEST, seed=seed
    )
    assert served.keys() == rows.keys()
    for name in served:
        np.testing.assert_array_equal(served[name], rows[name], err_msg=name)
    all_ids = [[toy_ids(p, seed + j) for j in range(BEST[0])] for p in PROMPTS]
    scores = np.sort(np.array(all_ids)[:, :, 0], axis=1)[:, ::-1][:, : BEST[1]]
    np.testing.assert_array_equal(served["score"], scores)


def test_more_rows_than_a_request_takes_come_in_order(client):
    drawn = client.generate(["a", "bcd"], num_samples=29, keep=29, seed=1)
    assert drawn["images"].shape[:2] == (2, 29)
    np.testing.assert_array_equal(
        np.sort(drawn["ids"][1, :, 0]),
        np.sort([toy_ids("bcd", 1 + j)[0] for j in range(29)]),
    )
    assert (np.diff(drawn["score"]) <= 0).all()


def test_wrong_knowledge_of_the_served_choice_is_said(address):
    with pytest.raises(ValueError, match="keeps 2 pictures in generate_best, not 3"):
        Client(address, model="toy", best=(7, 3)).generate(["a"], 7, 3)


def test_encode_and_decode_are_inverse(client):
    ids = np.repeat(np.array([[3], [96], [0], [41]]), stand_in.LENGTH, axis=1)
    images = client.decode(ids)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(client.encode(images), ids)
    np.testing.assert_array_equal(client.encode(images / 255.0), ids)
    np.testing.assert_array_equal(client.encode([write_picture(images[1])]), ids[1:2])
    many = np.tile(ids, (9, 1))
    np.testing.assert_array_equal(client.encode(client.decode(many)), many)


def test_pictures_survive_their_files():
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(read_picture(write_picture(image)), image)


def test_status_tells_versions(client):
    assert client.status() == {1: "AVAILABLE"}
    assert Client(client.address, model="toy", version=1).generate(["a"], num_samples=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 2, "keep": 3}, "1 ≤ keep ≤ num_samples.*keep=3"),
        ({"num_samples": 0, "keep": 0}, "num_samples=0, keep=0"),
        ({"seed": 1 << 63}, r"`seed` must be an integer in \[-2\*\*63"),
        ({"prompts": []}, "prompts must hold at least one"),
        ({"top_k": 1 << 31}, "top_k must be an integer of 32 bits.*2147483648"),
    ],
)
def test_mistakes_are_found_before_asking(client, options, words):
    with pytest.raises(ValueError, match=words):
        client.generate(**{"prompts": ["a"], **options})


def test_prompts_that_are_no_text_are_a_type_error(client):
    with pytest.raises(TypeError, match=r"prompts must be strings. Received: 3"):
        client.generate(["a", 3], num_samples=1)
    for none in ("a fox", None, 3):
        words = f"prompts must be a list of strings. Received: {none!r}"
        with pytest.raises(TypeError, match=words):
            client.generate(none, num_samples=1)
    assert len(client.generate(np.array(["a", "b"]), num_samples=1)["ids"]) == 2


def test_odd_bytes_of_a_shell_are_sent(client):
    assert client.generate(["caf\udce9"], num_samples=1)["prompt_tokens"] == [6]


def test_pictures_that_are_none_are_refused(client):
    with pytest.raises(ValueError, match=r"\(height, width, 3\).*\(5, 5\)"):
        client.encode(np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(ValueError, match=r"float in \[0, 1\].*255"):
        client.encode(np.full((2, 5, 5, 3), 255.0))
    with pytest.raises(ValueError, match="At least one"):
        client.encode([])
    with pytest.raises(ValueError, match=r"shape \(batch, length\).*float64"):
        client.decode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"equally many.*: 1 and 2"):
        client.score(np.zeros((1, 5, 5, 3), np.uint8), ["a", "b"])


def test_the_servers_words_are_in_the_error(client):
    words = r"^guidance_scale must lie in \[0, 30\]. Received: 31.5$"
    for num_samples in (1, 2, 13):
        with pytest.raises(ValueError, match=words):
            client.generate(["a"], guidance_scale=31.5, num_samples=num_samples)


def test_what_the_model_lacks_is_said_with_what_it_has(client):
    assert client.signatures() == sorted([*SIGNATURES, "serving_default"])
    has = f"no signature upscale; it has {', '.join(client.signatures())}. It was "
    with pytest.raises(ValueError, match=has + "exported without an upsampler"):
        client.upscale(np.zeros((1, 5, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"no signature score.*without a CoCa"):
        client.score(np.zeros((1, 5, 5, 3), np.uint8), ["a"])
    with pytest.raises(ValueError, match=r"no signature foo; it has .*default\.$"):
        client.predict("foo", {})


def test_values_that_differ_are_all_in_the_error(client):
    prompts = np.array([b"a", b"b", b"c"], object)
    options = {"guidance_scale": np.float32([31, 31, 32])}
    with pytest.raises(ValueError, match=r"Received: \[31 31 32\]$"):
        client.predict("generate", {"prompt": prompts} | options)


@pytest.mark.parametrize("signature", ["generate", "foo"])
def test_an_error_is_said_once(client, signature):
    """Not as a chain of gRPC's, with a traceback each."""
    with pytest.raises(ValueError, match=r"invalid name|has no signature") as error:
        client.predict(signature, {"prompt": np.array([b"a"], object), "odd": 1})
    assert error.value.__cause__ is None
    assert error.value.__context__ is None or error.value.__suppress_context__


def test_a_size_that_the_model_lacks_is_refused_before_drawing(client):
    """Not the guidance, which drawing would refuse."""
    with pytest.raises(ValueError, match="exported without an upsampler"):
        client.generate(["a"], num_samples=1, guidance_scale=31.5, size=10)


def test_pictures_go_in_requests_of_bounded_size():
    small = [{"image_bytes": b"x"}] * (2 * ROWS_PER_REQUEST + 3)
    assert [len(c) for c in chunks(small)] == [ROWS_PER_REQUEST, ROWS_PER_REQUEST, 3]
    large = [{"image_bytes": bytes(BYTES_PER_REQUEST // 3)}] * 7
    assert [len(c) for c in chunks(large)] == [3, 3, 1]
    # One that is larger alone is for the server to refuse.
    assert [
        len(c) for c in chunks([{"image_bytes": bytes(BYTES_PER_REQUEST + 1)}])
    ] == [1]


def test_both_kinds_offer_the_same():
    offered = [name for name in dir(Client) if not name.startswith("_")]
    assert offered == [name for name in dir(AsyncClient) if not name.startswith("_")]
    for name in offered:
        assert getattr(AsyncClient, name).__doc__ == getattr(Client, name).__doc__
