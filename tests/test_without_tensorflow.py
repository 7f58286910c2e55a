"""The models run where TensorFlow is not installed."""

import os
import subprocess
import sys

import pytest

HEAD = """
import sys
for name in ("tensorflow", "tensorflow_text", "tensorflow_datasets"):
    sys.modules[name] = None  # importing it fails, as if it were not there
"""


def run(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_models_run_on_jax(tmp_path):
    run(
        """
import numpy as np
import keras_parti

tokenizer = keras_parti.ViTVQGAN.from_preset("vit_vqgan_tiny")
size = tokenizer.config.image_size
images = np.zeros((2, size, size, 3), "float32")
assert tokenizer(images)["images"].shape == images.shape
ids = tokenizer.encode(images)
assert tokenizer.decode(ids).shape == images.shape

parti = keras_parti.Parti.from_preset("parti_tiny")
config = parti.config
text_ids = np.array([[2, 3] + [0] * (config.text_length - 2)] * 2, "int32")
image_ids = np.zeros((2, config.num_tokens), "int32")
logits = parti({"text_ids": text_ids, "image_ids": image_ids})
assert logits.shape == (2, config.num_tokens, config.num_codes)
assert np.isfinite(np.asarray(logits)).all()

tokenizer.save_dir("tokenizer")
again = keras_parti.ViTVQGAN.load_dir("tokenizer")
assert (np.asarray(again.encode(images)) == np.asarray(ids)).all()
""",
        tmp_path,
    )


def test_prompts_become_ids(tmp_path):
    run(
        """
from keras_parti.text import Vocabulary, train_vocabulary

train_vocabulary(["red apple", "green apple", "red pepper"], "vocabulary.model")
vocabulary = Vocabulary.from_file("vocabulary.model", length=20)
assert vocabulary.encode(["red", ""]).tolist()[1] == [2, 3] + [0] * 18
""",
        tmp_path,
    )


def test_modules_without_tensorflow_are_importable(tmp_path):
    run(
        """
from keras_parti import cli, layers, losses, metrics, models, presets, sampling, text
""",
        tmp_path,
    )
