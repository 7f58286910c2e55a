"""Every training step is one program of XLA with static shapes, as TPUs ask."""

import re

import keras
import numpy as np
import pytest
from discs import pictures

tf = pytest.importorskip("tensorflow")

from keras_parti.models import (  # noqa: E402
    VIM,
    WDSR,
    CoCa,
    Discriminator,
    Parti,
    ViTVQGAN,
)
from keras_parti.optimizers import AdamW  # noqa: E402
from keras_parti.training.adversarial import AdversarialTraining  # noqa: E402
from keras_parti.training.coca import compile_coca  # noqa: E402
from keras_parti.training.parti import compile_parti  # noqa: E402
from keras_parti.training.upsampler import Upsampling  # noqa: E402
from keras_parti.training.vim import compile_vim  # noqa: E402
from keras_parti.training.xla import check_compiles  # noqa: E402

TEXT_IDS = np.tile([[2, 7, 5, 3, 0, 0, 0, 0, 0, 0, 0]], (4, 1)).astype("int32")
IMAGE_IDS = (np.arange(36).reshape(4, 9) % 23).astype("int32")


class Wrong(keras.Model):
    """A model whose step is not for a TPU."""

    def __init__(self, call):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.dense.build((None, 5))
        self.after = call
        self.built = True

    def call(self, x):
        return self.after(self.dense(x))


def check_wrong(call):
    model = Wrong(call)
    model.compile("sgd", "mse")
    ones = np.ones((4, 5), "float32")
    return check_compiles(model, (ones, ones[:, :3]))


def test_an_operation_that_xla_lacks_is_named():
    def write(x):
        return x + tf.strings.to_number(tf.strings.as_string(tf.reduce_sum(x)))

    with pytest.raises(ValueError, match=r"step of Wrong does not .*AsString"):
        check_wrong(write)


def test_a_shape_that_depends_on_values_is_named():
    def pick(x):
        return x + tf.reduce_sum(tf.boolean_mask(x, x[:, 0] > 0))

    with pytest.raises(ValueError, match=r"shape depends on values.*[Ww]here"):
        check_wrong(pick)


def test_a_step_that_compiles_gives_its_program_and_moves_no_weight():
    model = Wrong(tf.tanh)
    model.compile("adam", "mse")
    ones = np.ones((4, 5), "float32")
    before = model.get_weights()
    assert "HloModule" in check_compiles(model, (ones, ones[:, :3]))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def tokenizer():
    model = AdversarialTraining(
        ViTVQGAN.from_preset("vit_vqgan_tiny"),
        discriminator=Discriminator.from_preset("discriminator_tiny"),
        perceptual=lambda a, b: tf.reduce_mean(tf.abs(a - b), axis=(1, 2, 3)),
    )
    model.compile(AdamW(1e-3), AdamW(1e-3))
    return model, pictures(8), pictures(8)


def vim():
    model = VIM.from_preset("vim_tiny")
    compile_vim(model, 1e-3)
    ids = {"labels": np.arange(4, dtype="int32"), "image_ids": IMAGE_IDS}
    return model, ids, IMAGE_IDS


def parti():
    model = Parti.from_preset("parti_tiny", attention_kernel=3)
    compile_parti(model, 1e-3, optimizer="adafactor")
    return model, {"text_ids": TEXT_IDS, "image_ids": IMAGE_IDS}, IMAGE_IDS


def wdsr():
    model = AdversarialTraining(
        Upsampling(WDSR.from_preset("wdsr_tiny"), 24), {"l1": 1.0}
    )
    model.compile(AdamW(1e-3))
    images = np.random.default_rng(0).random((4, 24, 24, 3), "float32")
    return model, images, images


def coca():
    model = CoCa.from_preset("coca_tiny")
    compile_coca(model, 1e-3)
    inputs = {"images": pictures(4), "text_ids": TEXT_IDS}
    targets = {"embeddings": np.zeros(4, "float32"), "tokens": TEXT_IDS[:, 1:]}
    return model, inputs, targets


@pytest.mark.slow
@pytest.mark.parametrize("case", [tokenizer, vim, parti, wdsr, coca])
def test_the_whole_training_step_compiles(case):
    model, inputs, targets = case()
    program = check_compiles(model, (inputs, targets))
    # Weights and the optimiser's state go into the program and come out of it.
    moved = len(model.trainable_variables) + len(model.optimizer.variables)
    (signature,) = re.findall(r"entry_computation_layout=\{(.*)\}", program)
    given, returned = signature.split("->")
    assert min(given.count("["), returned.count("[")) >= moved
