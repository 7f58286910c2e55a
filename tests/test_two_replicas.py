"""Two replicas learn what one device learns: the models that have no such test yet.

Parti and VIM have theirs in test_model_conformance, the tokenizer with its
discriminator in test_adversarial. All with SGD, since Adam hides a wrong scale of the
gradients.
"""

import keras
import numpy as np
import pytest
from discs import pictures

tf = pytest.importorskip("tensorflow")

from keras_parti.losses import TextCrossEntropy  # noqa: E402
from keras_parti.models import WDSR, CoCa, TextEncoder  # noqa: E402
from keras_parti.training.adversarial import AdversarialTraining  # noqa: E402
from keras_parti.training.coca import LOSS_WEIGHTS  # noqa: E402
from keras_parti.training.contrastive import GlobalContrastive  # noqa: E402
from keras_parti.training.text_encoder import compile_text_encoder  # noqa: E402
from keras_parti.training.upsampler import Upsampling  # noqa: E402


def perturbed(model):
    """Moves weights away from their start, where blocks are identities."""
    random = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1 * random.normal(size=variable.shape))
    return model


def coca():
    model = perturbed(CoCa.from_preset("coca_tiny"))
    losses = {"embeddings": GlobalContrastive(), "tokens": TextCrossEntropy()}
    model.compile(
        keras.optimizers.SGD(0.05),
        loss=losses,
        loss_weights={name: LOSS_WEIGHTS[name] for name in losses},
        jit_compile=False,
    )
    random = np.random.default_rng(5)
    ids = random.integers(4, 300, (16, 11)).astype("int32")
    ids[:, 0] = 2
    images = random.random((16, 12, 12, 3), "float32")
    targets = {"embeddings": np.zeros(16, "float32"), "tokens": ids[:, 1:]}
    return model, {"images": images, "text_ids": ids}, targets


def text_encoder():
    fields = {"dropout_rate": 0.0, "image_layers": 1, "embedding_dim": 5}
    model = perturbed(TextEncoder.from_preset("parti_tiny", **fields))
    compile_text_encoder(model, 1e-3)
    model.compile(
        keras.optimizers.SGD(0.05),
        loss=model.loss,
        loss_weights={"tokens": 1.0, "embeddings": 1.0},
        jit_compile=False,
    )
    random = np.random.default_rng(5)
    ids = random.integers(4, 300, (16, 11)).astype("int32")
    ids[:, 0] = 2
    images = random.integers(0, 23, (16, 9)).astype("int32")
    targets = {"embeddings": np.zeros(16, "float32"), "tokens": ids}
    return model, {"image_ids": images, "text_ids": ids}, targets


def wdsr():
    upsampling = Upsampling(perturbed(WDSR.from_preset("wdsr_tiny")), 24)
    model = AdversarialTraining(upsampling, {"l1": 1.0})
    model.compile(keras.optimizers.SGD(0.05))
    images = pictures(16, 24)
    return model, images, images


@pytest.mark.slow
@pytest.mark.parametrize("case", [coca, text_encoder, wdsr])
def test_two_replicas_learn_what_one_device_learns(case, two_replicas):
    found = []
    for strategy in (tf.distribute.OneDeviceStrategy("/cpu:0"), two_replicas):
        keras.utils.set_random_seed(7)
        with strategy.scope():
            model, inputs, targets = case()
            first = model.get_weights()
            data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(8)
            history = model.fit(data, epochs=2, verbose=0, shuffle=False).history
        found.append((model.get_weights(), history))
    (one, losses), (two, losses_of_two) = found
    for name, values in losses.items():
        np.testing.assert_allclose(losses_of_two[name], values, rtol=1e-4, err_msg=name)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    moved = max(np.abs(a - b).max() for a, b in zip(first, one, strict=True))
    assert moved > 1e-2
