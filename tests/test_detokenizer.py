"""A decoder trained on: the ids, the codes and what was made from them stay."""

import keras
import numpy as np
import pytest
from discs import pictures, use_discs

tf = pytest.importorskip("tensorflow")

from keras_parti import data  # noqa: E402
from keras_parti.models import ViTVQGAN  # noqa: E402
from keras_parti.training.detokenizer import (  # noqa: E402
    detokenizer,
    train_detokenizer,
)
from keras_parti.training.tokenizer import Losses  # noqa: E402


@pytest.fixture
def tokenizer():
    """A tokenizer whose blocks are no identities."""
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1 * rng.normal(size=variable.shape))
    return model


@pytest.mark.parametrize("decoder", [{}, {"decoder_layers": 4}])
def test_more_blocks_begin_with_the_pictures_of_the_old_decoder(tokenizer, decoder):
    model = detokenizer(tokenizer, **decoder)
    ids = np.arange(18, dtype="int32").reshape(2, 9)
    np.testing.assert_allclose(model.decode(ids), tokenizer.decode(ids), atol=1e-6)


@pytest.mark.parametrize(
    "decoder", [{"decoder_dim": 24}, {"decoder_mlp_dim": 40}, {"output": "rgb"}]
)
def test_other_decoders_have_the_same_ids(tokenizer, decoder):
    model = detokenizer(tokenizer, **decoder)
    assert model.fingerprint() == tokenizer.fingerprint()
    images = pictures()
    np.testing.assert_array_equal(model.encode(images), tokenizer.encode(images))


def test_training_leaves_encoder_and_codebook_bit_by_bit(
    tokenizer, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    examples = tf.data.Dataset.from_tensor_slices(
        {"image": pictures(), "captions": [["a disc"]] * 14, "synonyms": [[""]] * 14}
        | {name: ["x"] * 14 for name in ("name", "style", "tone")}
    )
    data.write_token_cache(
        cache, "train", examples, tokenizer.encode, tokenizer.fingerprint(), 23, 9
    )
    use_discs(monkeypatch)
    model = detokenizer(tokenizer, decoder_layers=3, output="rgb")
    before = model.decoder.get_weights()
    train_detokenizer(
        model,
        "discs",
        tmp_path / "run",
        4,
        batch_size=4,
        learning_rate=1e-2,
        warmup_steps=1,
        average=0.5,
        terms=Losses(discriminator="discriminator_tiny", r1_interval=2),
        steps_per_epoch=2,
        verbose=0,
    )
    again = ViTVQGAN.load_dir(tmp_path / "run" / "model")
    for trained in (model, again):
        for part in ("encoder", "quantizer"):
            pairs = zip(
                getattr(trained, part).get_weights(),
                getattr(tokenizer, part).get_weights(),
                strict=True,
            )
            assert all(ours.tobytes() == theirs.tobytes() for ours, theirs in pairs)
        assert trained.fingerprint() == tokenizer.fingerprint()
        for w, start in zip(trained.decoder.get_weights(), before, strict=True):
            assert np.abs(w - start).max() > 0
    rows = data.read_token_cache(cache, "train", again.fingerprint())
    assert len(list(rows)) == 14


def test_a_fingerprint_is_that_of_the_encoder_and_codebook():
    keras.utils.set_random_seed(0)
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    known = {model.fingerprint()}
    model.decoder.norm.gamma.assign_add(np.ones(16))
    assert model.fingerprint() in known
    model.encoder.norm.gamma.assign_add(np.ones(16))
    known.add(model.fingerprint())
    assert len(known) == 2
    codebook = model.quantizer.codebook
    codebook.assign(np.roll(codebook, 1, axis=0))
    known.add(model.fingerprint())
    assert len(known) == 3
    heads = ViTVQGAN.from_preset("vit_vqgan_tiny", encoder_heads=4)
    heads.set_weights(model.get_weights())
    assert heads.fingerprint() not in known


def test_fields_of_the_encoder_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"Only the decoder.*Received: code_dim=8"):
        detokenizer(tokenizer, code_dim=8)


def test_a_model_that_is_not_frozen_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="must be frozen"):
        train_detokenizer(tokenizer, "discs", tmp_path)
