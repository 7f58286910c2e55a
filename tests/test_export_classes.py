"""A served model of classes answers as the chain does, and names what is wrong."""

import numpy as np
import pytest
from far_weights import scatter_matrices

pytest.importorskip("tensorflow")

from keras_parti.cli import main
from keras_parti.models import VIM, ClassToImage, ViTVQGAN
from keras_parti.serving.card import check_card
from keras_parti.serving.client import Client
from keras_parti.serving.export_classes import export_classes
from keras_parti.serving.server import Server

CLASSES = ["ant", "bee", "cow", "dog", "eel"]


def make_chain(**fields):
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    vim = VIM.from_preset("vim_tiny", **fields)
    scatter_matrices(tokenizer, vim)
    return ClassToImage(tokenizer, vim)


@pytest.fixture(scope="module")
def chain():
    return make_chain(class_dropout_rate=0.2)


@pytest.fixture(scope="module")
def version(chain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "insects"
    return export_classes(chain, folder, CLASSES, licence="CC0-1.0")


@pytest.fixture(scope="module")
def client(version):
    with (
        Server(version.parent, port=0) as server,
        Client(server.address, model="insects") as client,
    ):
        yield client


def same(served, local):
    assert served.keys() == local.keys()
    np.testing.assert_array_equal(served["ids"], local["ids"])
    np.testing.assert_array_equal(served["images"], local["images"])
    np.testing.assert_allclose(served["score"], local["score"], atol=1e-5)


def test_the_server_draws_the_chains_pictures(chain, client):
    same(client.generate_class([3, 5]), chain.generate([3, 5]))
    options = {"guidance_scale": 1.7, "temperature": 0.9, "top_k": 9, "top_p": 0.8}
    options |= {"num_samples": 3, "keep": 2, "seed": 7}
    served = client.generate_class([0, 4, 2], **options)
    same(served, chain.generate([0, 4, 2], **options))


def test_what_a_request_leaves_out_has_its_default(chain, client):
    reply = client.predict("serving_default", {"label": np.array([1, 2], np.int32)})
    local = chain.generate([1, 2], seed=0)
    np.testing.assert_array_equal(reply["ids"], local["ids"][:, 0])
    assert set(reply) == {"image_bytes", "ids", "score"}


def test_pictures_go_to_ids_and_back(chain, client):
    drawn = chain.generate([3])
    np.testing.assert_array_equal(client.decode(drawn["ids"][0]), drawn["images"][0])
    ids = client.encode(drawn["images"][0])
    images = drawn["images"][0].astype("float32") / 255
    np.testing.assert_array_equal(ids, chain.tokenizer.encode(images))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([2, 6], {}, r"label must lie in \[0, 5\].*6"),
        ([-1], {}, r"label must lie in \[0, 5\].*-1"),
        ([1], {"top_p": 2.0}, r"top_p must lie in \[0.0, 1.0\]"),
        ([], {}, "labels must be a list of integers"),
        ([0.5], {}, "labels must be a list of integers"),
        ([2**40], {}, "labels must be a list of integers"),
    ],
)
def test_bad_requests_are_named(client, labels, options, message):
    with pytest.raises(ValueError, match=message):
        client.generate_class(labels, **options)


def test_columns_of_other_lengths_are_refused(client):
    inputs = {
        "label": np.array([1, 2], np.int32),
        "seed": np.array([1, 2, 3], np.int64),
    }
    with pytest.raises(ValueError, match=r"seed must .* one for each label"):
        client.predict("generate_class", inputs)


def test_the_card_says_what_a_label_means(version):
    card = (version / "card.md").read_text()
    check_card(card)
    assert "| 3 | dog |\n| 4 | eel |\n| 5 | none of them |" in card
    assert "Licence of the weights: CC0-1.0." in card
    assert (version / "fingerprint").read_text().strip() in card


def test_names_that_are_too_few_are_refused(chain, tmp_path):
    with pytest.raises(ValueError, match=r"`classes` must be 5 names.*Received: 4"):
        export_classes(chain, tmp_path, CLASSES[:4])


@pytest.mark.slow
def test_the_command_exports_a_run_and_what_saw_all_classes_is_not_guided(
    tmp_path, capsys
):
    chain = make_chain()
    chain.save(tmp_path)
    (tmp_path / "vim" / "classes.json").write_text('["a", "b", "c", "d", "e"]')
    out = tmp_path / "models" / "letters"
    run = f"export --tokenizer {tmp_path}/tokenizer --out {out}".split()
    assert main([*run, "--vim", f"{tmp_path}/vim"]) == 0
    assert "| 4 | e |" in (out / "1" / "card.md").read_text()
    with (
        Server(out, port=0) as server,
        Client(server.address, model="letters") as client,
    ):
        same(client.generate_class([2]), chain.generate([2]))
        with pytest.raises(ValueError, match="guidance_scale must be 1"):
            client.generate_class([2], guidance_scale=1.5)
    capsys.readouterr()
    assert main([*run, "--parti", f"{tmp_path}/vim"]) == 2
    assert "--parti needs --vocab" in capsys.readouterr().err
