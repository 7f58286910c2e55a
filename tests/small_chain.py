"""A chain of the smallest sizes for the tests of serving, and requests to it."""

import numpy as np
from far_weights import scatter_matrices

from keras_parti import sampling
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.text import Vocabulary, train_vocabulary

SAMPLES, KEEP = 7, 3  # of its generate_best
PROMPTS = ["red fox in google style", "", "Füchse, 狐, 🦊"]


def make_chain(folder):
    things = [f"{c} {t}" for c in ("red", "green") for t in ("fox", "apple", "pear")]
    styles = [f"{t} in {s} style" for t in things for s in ("google", "twitter")]
    train_vocabulary(styles, folder / "vocabulary.model", 300)
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    parti = Parti.from_preset("parti_tiny")
    scatter_matrices(tokenizer, parti)
    length = parti.config.text_length
    vocabulary = Vocabulary.from_file(folder / "vocabulary.model", length)
    return TextToImage(tokenizer, parti, vocabulary)


def strings(*values):
    return np.array(values, object)


def columns(prompts, seed=0, **options):
    options = sampling.DEFAULTS | options
    rows = len(prompts)
    return {
        "prompt": strings(*(prompt.encode() for prompt in prompts)),
        "seed": np.full(rows, seed, np.int64),
        "guidance_scale": np.full(rows, options["guidance_scale"], np.float32),
        "temperature": np.full(rows, options["temperature"], np.float32),
        "top_k": np.full(rows, options["top_k"], np.int32),
        "top_p": np.full(rows, options["top_p"], np.float32),
    }


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        # The order of a sum may differ between graphs; nothing else does.
        if name == "score":
            np.testing.assert_allclose(left[name], right[name], atol=1e-5)
        else:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
