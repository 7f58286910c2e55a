"""The text encoder: what is hidden, what is learned, and that Parti gets it."""

import functools

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from keras_parti.layers.embeddings import BOS, EOS, PAD, UNK  # noqa: E402
from keras_parti.losses import Contrastive, TextCrossEntropy  # noqa: E402
from keras_parti.models import Parti, TextEncoder  # noqa: E402
from keras_parti.text import Vocabulary, train_vocabulary  # noqa: E402
from keras_parti.training.contrastive import GlobalContrastive  # noqa: E402
from keras_parti.training.text_encoder import (  # noqa: E402
    compile_text_encoder,
    hide_tokens,
    train_text_encoder,
)

NAMES = ["cat", "dog", "tree", "bread", "apple", "fish", "star"]
SMALL = {"image_layers": 1, "embedding_dim": 5, "dropout_rate": 0.0}


def texts(count, length=11, pieces=5, size=300):
    ids = np.full((count, length), PAD, "int32")
    ids[:, 0], ids[:, pieces + 1] = BOS, EOS
    ids[:, 1 : pieces + 1] = np.random.default_rng(0).integers(4, size, (count, pieces))
    return ids


def randomised(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def test_tokens_are_hidden_as_by_bert():
    ids = texts(4000)
    read, told = (t.numpy() for t in hide_tokens(ids, 300, (3, 5), rate=0.3))
    special = ids <= EOS
    assert (told[special] == PAD).all()
    assert (read[special] == ids[special]).all()
    hidden = told != PAD
    np.testing.assert_array_equal(told[hidden], ids[hidden])
    np.testing.assert_array_equal(read[~hidden], ids[~hidden])
    # Of five, and one of them where it would be none.
    assert hidden.any(axis=1).all()
    expected = (5 * 0.3 + 0.7**5) / 5
    share = hidden.sum() / (5 * len(ids))
    assert abs(share - expected) < 5 * np.sqrt(0.3 * 0.7 / (5 * len(ids)))
    for kind, share in ((read == UNK, 0.8), (read == ids, 0.1 + 0.1 / 296)):
        found = kind[hidden].mean()
        assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / hidden.sum())
    assert read.min() >= 0
    assert read.max() < 300


def test_nothing_is_hidden_of_an_empty_prompt():
    ids = texts(3, pieces=0)
    read, told = hide_tokens(ids, 300, (3, 5))
    np.testing.assert_array_equal(read, ids)
    assert (told.numpy() == PAD).all()


def test_the_loss_is_over_hidden_tokens():
    logits = np.float32(np.sin(np.arange(3 * 5 * 7))).reshape(3, 5, 7)
    told = np.array([[0, 3, 0, 6, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], "int32")
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows = [-(logs[0, 1, 3] + logs[0, 3, 6]) / 2, 0.0, -logs[2, 0, 1]]
    loss = TextCrossEntropy()(told, logits)
    assert float(loss) == pytest.approx(np.mean(rows), rel=1e-5)


def test_the_contrastive_loss_is_that_of_two_classifications():
    vectors = np.float32(np.sin(np.arange(5 * 2 * 3))).reshape(5, 2, 3)
    logits = vectors[:, 0] @ vectors[:, 1].T
    rows = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    loss = float(Contrastive()(np.zeros(5), vectors))
    assert loss == pytest.approx((rows + columns).mean() / 2, rel=1e-5)


def test_vectors_have_their_lengths():
    model = randomised(TextEncoder.from_preset("parti_tiny", **SMALL))
    outputs = model({"text_ids": texts(3), "image_ids": np.zeros((3, 9), "int32")})
    assert outputs["tokens"].shape == (3, 11, 300)
    lengths = np.linalg.norm(outputs["embeddings"], axis=-1)
    expected = [np.exp(float(model.log_scale)), 1.0]
    np.testing.assert_allclose(lengths, [expected] * 3, rtol=1e-5)


def test_a_text_is_compared_by_the_output_at_bos():
    model = randomised(TextEncoder.from_preset("parti_tiny", **SMALL))
    inputs = {"text_ids": texts(3), "image_ids": np.zeros((3, 9), "int32")}
    vectors = np.array(model.encode(texts(3)))[:, 0] @ model.text_projection.kernel
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found = np.array(model(inputs)["embeddings"])[:, 0] / np.exp(model.log_scale)
    np.testing.assert_allclose(found, vectors / lengths, atol=1e-5)


def test_padding_does_not_change_what_a_text_is():
    model = randomised(TextEncoder.from_preset("parti_tiny", **SMALL))
    before = np.array(model.encode(texts(3)))
    table = np.array(model.text_embedding.embeddings)
    table[PAD] = 3 * np.sin(np.arange(16))
    model.text_embedding.embeddings.assign(table)
    after = np.array(model.encode(texts(3)))
    np.testing.assert_allclose(after[:, :7], before[:, :7], atol=1e-5)
    assert np.abs(after[:, 7:] - before[:, 7:]).max() > 0.1


def test_parti_gets_the_encoder():
    encoder = randomised(TextEncoder.from_preset("parti_tiny"))
    parti = randomised(Parti.from_preset("parti_tiny"))
    rest = [np.array(v) for v in parti.decoder[0].weights]
    ids = texts(3)
    assert np.abs(parti.encode(ids)[0] - encoder.encode(ids)).max() > 0.1
    encoder.give_encoder(parti)
    np.testing.assert_allclose(parti.encode(ids)[0], encoder.encode(ids), atol=1e-6)
    for variable, before in zip(parti.decoder[0].weights, rest, strict=True):
        np.testing.assert_array_equal(variable, before)


def test_an_encoder_of_other_sizes_is_refused():
    encoder = TextEncoder.from_preset("parti_tiny", encoder_layers=2)
    with pytest.raises(
        ValueError, match=r"encoder_layers=2 does not.*encoder_layers=1"
    ):
        encoder.give_encoder(Parti.from_preset("parti_tiny"))


def test_an_encoder_of_another_vocabulary_is_refused():
    encoder = TextEncoder.from_preset("parti_tiny", vocabulary="ours")
    with pytest.raises(ValueError, match=r"vocabulary ours does.*vocabulary theirs"):
        encoder.give_encoder(Parti.from_preset("parti_tiny", vocabulary="theirs"))
    parti = Parti.from_preset("parti_tiny")
    encoder.give_encoder(parti)
    assert parti.config.vocabulary == "ours"
    # One from before vocabularies were noted fits any.
    TextEncoder.from_preset("parti_tiny").give_encoder(parti)
    assert parti.config.vocabulary == "ours"


def test_it_is_trained_by_the_loss_over_all_replicas():
    model = TextEncoder.from_preset("parti_tiny", **SMALL)
    compile_text_encoder(model, 1e-3)
    assert isinstance(model.loss["embeddings"], GlobalContrastive)


def test_without_held_out_pictures_nothing_is_validated(tmp_path, monkeypatch):
    from test_training_parti import write_cache

    from keras_parti.training import text_encoder

    train_vocabulary([f"{n} in toy style" for n in NAMES], tmp_path / "v", size=290)
    vocabulary = Vocabulary.from_file(tmp_path / "v", 11)
    given = []
    monkeypatch.setattr(
        text_encoder.runs, "fit", lambda *_, **given_: given.append(given_)
    )
    for splits in (("train",), ("train", "validation")):
        cache = write_cache(tmp_path / str(len(splits)), 5, splits=splits)
        model = TextEncoder.from_preset("parti_tiny", **SMALL)
        train_text_encoder(model, cache, vocabulary, tmp_path / "run", 2)
    without, with_some = (each["validation_data"] for each in given)
    assert without is None
    assert with_some is not None


def test_it_learns_both_and_goes_on(tmp_path):
    """Seven names, a picture of its own each: both losses fall below chance."""
    from test_training_parti import write_cache

    train_vocabulary([f"{n} in toy style" for n in NAMES], tmp_path / "v", size=290)
    vocabulary = Vocabulary.from_file(tmp_path / "v", 11)
    cache = write_cache(tmp_path / "cache", 5)
    logs = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, values: logs.append(dict(values))
    )

    def run(steps):
        model = TextEncoder.from_preset("parti_tiny", **SMALL)
        model.compile = functools.partial(model.compile, run_eagerly=True)
        train_text_encoder(
            model,
            cache,
            vocabulary,
            tmp_path / "run",
            steps,
            batch_size=7,
            learning_rate=1e-2,
            warmup_steps=2,
            steps_per_epoch=20,
            callbacks=[note],
            verbose=0,
        )
        return model

    run(20)
    model = run(40)
    assert logs[1]["val_tokens_loss"] < logs[0]["val_tokens_loss"] < np.log(300)
    again = TextEncoder.load_dir(tmp_path / "run" / "model")
    assert again.config.tokenizer == "a tokenizer"
    assert again.config.vocabulary == vocabulary.fingerprint
    np.testing.assert_allclose(
        again.encode(texts(2)), model.encode(texts(2)), atol=1e-6
    )
