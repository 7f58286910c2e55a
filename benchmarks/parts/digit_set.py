"""Handwritten digits, with all that Parti needs to be trained and measured on them."""

import keras

from keras_parti.models import CoCa, ViTVQGAN
from keras_parti.text import Vocabulary
from keras_parti.training.coca import train_coca
from keras_parti.training.preparation import encode_set, train_set_vocabulary
from keras_parti.training.tokenizer import Losses, train_tokenizer

DATA = "handwritten_digits"
TEXT_LENGTH = 24  # ids; the longest caption has 21
COCA = {
    "image_size": 24,
    "patch_size": 4,
    "dim": 128,
    "heads": 4,
    "image_layers": 3,
    "image_mlp_dim": 512,
    "text_mlp_dim": 512,
    "multimodal_layers": None,
    "num_queries": 8,
    "text_length": TEXT_LENGTH,
}


def digit_set(folder):
    """Trains a tokenizer, a vocabulary and a CoCa on digits, and encodes them.

    Goes on where it was interrupted.

    Args:
        folder: path to write into.

    Returns:
        Paths: of the token cache, the vocabulary, the tokenizer and the CoCa.
    """
    keras.utils.set_random_seed(0)
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_digits")
    train_tokenizer(
        tokenizer,
        DATA,
        folder / "tokenizer",
        steps=600,
        batch_size=64,
        learning_rate=2e-3,
        warmup_steps=30,
        terms=Losses({"l2": 10.0}),
        verbose=2,
    )
    words = folder / "vocabulary.model"
    if not words.exists():
        train_set_vocabulary(DATA, words, 300)
    vocabulary = Vocabulary.from_file(words, TEXT_LENGTH)
    encode_set(tokenizer, DATA, folder / "tokens", crops=4)
    coca = CoCa.from_preset("coca_emoji", **COCA, text_vocab_size=vocabulary.size)
    train_coca(
        coca,
        DATA,
        vocabulary,
        folder / "coca",
        steps=2000,
        learning_rate=1e-3,
        tokenizer=tokenizer,
        reconstructed=0.25,
        shift=2,
        flip_rate=0.0,  # a mirrored digit is none
        verbose=2,
    )
    return folder / "tokens", words, folder / "tokenizer", folder / "coca"
