"""The pictures of the tests, as a prepared set with a tokenizer, tokens and words."""

import os
from pathlib import Path

import keras

from keras_parti import data
from keras_parti.models import ViTVQGAN
from keras_parti.training.preparation import encode_set, train_set_vocabulary

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "emoji"


def toy_set(folder):
    """Prepares 59 emoji and encodes them with an untrained tokenizer.

    Args:
        folder: path to write into.

    Returns:
        Paths: of the token cache, the vocabulary, the tokenizer and the picture set.
    """
    os.environ["KERAS_PARTI_EMOJI"] = str(FIXTURE)
    builder = data.EmojiCaptions(config="small", data_dir=folder)
    builder.download_and_prepare()
    pictures = str(builder.data_dir)
    keras.utils.set_random_seed(0)
    model = ViTVQGAN.from_preset("vit_vqgan_tiny")
    model.save_dir(folder / "tokenizer")
    train_set_vocabulary(pictures, folder / "vocabulary.model", 300)
    encode_set(model, pictures, folder / "tokens")
    return (
        folder / "tokens",
        folder / "vocabulary.model",
        folder / "tokenizer",
        pictures,
    )
