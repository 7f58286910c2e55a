"""Where a tokenizer starts: its towers fitted to patches by least squares."""

import keras
import numpy as np
from keras import ops

from keras_parti.layers.embeddings import to_patches
from keras_parti.training.codebook import parts

BATCH = 16  # pictures whose features are held at once: 134 MB of 1,024 patches × 2,048
# Deviation of the biases of both embeddings. Layer norm takes away how bright a patch
# is, and leaves it only beside something that all patches share.
BIAS = 0.5
# Root mean square of the patches' angles on the sphere of codes. Patches up to three
# times as far as that keep their distances along a circle, and 0.66 of those across.
SPREAD = 0.5
# Share of the features' mean square that least squares add to each one's.
RIDGE = 1e-5


class PatchStart(keras.callbacks.Callback):
    """Starts the towers of a ViT-VQGAN from data, before the first epoch.

    The blocks of a fresh model are identities, so that a tower is a map of single
    patches: random features of a patch, and a last dense layer. Least squares give that
    layer. The encoder's gives a patch its principal components, laid on the sphere of
    codes so that distances stay; the decoder's gives the patch of such a code. A
    codebook placed on these (`CodebookRevival`) is one of plain vector quantisation,
    and that is where training begins, in place of noise.

    Not in the paper, which starts at random. Of held-out photographs at 64×64, 256 ids
    of 8,192 codes of 8, pictures come back with 27.0 dB before the first step, where
    plain vector quantisation of their 4×4 pixels has 27.5.

    The codes lie close together, so that the loss of pictures must not pull vectors
    away from them: weighed by 10 it brought these to 25.3 dB in 400 steps (rate 1e-4),
    by 0.2 to 27.2 in 200 (rate 3e-4).

    Args:
        tokenizer: `ViTVQGAN`, fresh.
        sample: function that returns a `tf.data.Dataset` of float
            `(batch, height, width, 3)`, RGB in `[0, 1]`; held in memory as one.
        seed: int. Seed of the biases.
    """

    # An epoch that goes on from its midst has had its beginning.
    moves_weights = True

    def __init__(self, tokenizer, sample, seed=0):
        super().__init__()
        self.tokenizer = tokenizer
        self.sample = sample
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        if not epoch:
            images = np.concatenate([as_numpy(images) for images in self.sample()])
            fit_towers(self.tokenizer, images, self.seed)


def fit_towers(model, images, seed=0):
    """Fits the last layers of both towers, whose blocks are identities.

    Args:
        model: `ViTVQGAN`, fresh; changed in place.
        images: float NumPy array `(count, height, width, 3)`, RGB in `[0, 1]`.
        seed: int. Seed of the biases.
    """
    config = model.config
    rng = np.random.default_rng(seed)
    for bias in (model.encoder.embedding.projection.bias, model.decoder.embedding.bias):
        bias.assign(rng.normal(scale=BIAS, size=bias.shape))

    wanted = as_numpy(to_patches(images, config.patch_size))
    codes = code_targets(wanted, config.code_dim, config.normalized_codes)
    inputs = as_numpy(model.centre(images))
    fit_last(model.encoder, inputs, codes)

    # Without the blocks, identities whose attention takes long.
    vectors = [
        as_numpy(model.encoder.without_blocks(part)) for part in parts(inputs, BATCH)
    ]
    vectors = as_numpy(model.quantizer.normalize(np.concatenate(vectors)))
    fit_last(model.decoder, vectors, as_numpy(model.patches(images)))


def code_targets(patches, dim, normalized):
    """Returns what the codes of patches are to be: their principal components.

    Args:
        patches: float NumPy array `(count, length, values)`.
        dim: int. Width of the codes.
        normalized: bool. Whether codes lie on the sphere: the components are then laid
            around a pole by its exponential map.

    Returns:
        float32 `(count, length, dim)`. Components beyond those of the patches are 0.
    """
    flat = patches.reshape(-1, patches.shape[-1])
    centred = flat - flat.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # the widest come last
    components = np.zeros((len(flat), dim - normalized), "float32")
    kept = directions[:, ::-1][:, : components.shape[1]]
    components[:, : kept.shape[1]] = centred @ kept
    components *= SPREAD / max(np.sqrt(np.square(components).sum(-1).mean()), 1e-12)
    if normalized:
        length = np.linalg.norm(components, axis=-1, keepdims=True)
        angle = np.minimum(length, np.pi / 2)
        around = np.sin(angle) * components / np.maximum(length, 1e-12)
        components = np.concatenate([np.cos(angle), around], axis=-1)
    return components.reshape(*patches.shape[:-1], dim)


def centre_hidden(tower, inputs):
    """Scales the units before the tanh of a tower's head: mean 0, deviation 1.

    Features that all patches share would let Adam's first steps, each as long as the
    learning rate whatever the gradient, shift every pixel at once.

    Args:
        tower: of `ViTVQGAN`, with a tanh head.
        inputs: NumPy array `(count, ...)`, what the tower is called with.
    """
    hidden = tower.head.hidden
    kernel = as_numpy(hidden.kernel)
    count = sums = squares = 0.0
    for part in parts(inputs, BATCH):
        units = as_numpy(tower.before_head(part)) @ kernel
        units = units.reshape(-1, kernel.shape[1]).astype("float64")
        count += len(units)
        sums, squares = sums + units.sum(0), squares + np.square(units).sum(0)
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    hidden.kernel.assign(kernel / deviation)
    hidden.bias.assign(-mean / deviation)


def fit_last(tower, inputs, targets):
    """Gives a tower's last dense layer the weights that bring it nearest to targets.

    Args:
        tower: of `ViTVQGAN`.
        inputs: NumPy array `(count, ...)`, what the tower is called with.
        targets: float NumPy array `(count, length, output_dim)`.
    """
    if tower.head is not tower.last:
        centre_hidden(tower, inputs)
    products = moments = 0.0
    for part, wanted in zip(parts(inputs, BATCH), parts(targets, BATCH), strict=True):
        features = as_numpy(tower.features(part))
        features = features.reshape(-1, features.shape[-1])
        features = np.pad(features, ((0, 0), (0, 1)), constant_values=1.0)  # the bias
        features = features.astype("float64")
        products = products + features.T @ features
        moments = moments + features.T @ wanted.reshape(len(features), -1)
    ridge = RIDGE * np.trace(products) / len(products)
    weights = np.linalg.solve(products + ridge * np.eye(len(products)), moments)
    tower.last.kernel.assign(weights[:-1])
    tower.last.bias.assign(weights[-1])


def as_numpy(tensor):
    """Returns a tensor as a float32 NumPy array."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
