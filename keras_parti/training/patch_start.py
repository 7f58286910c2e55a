"""Where a tokenizer starts: its towers fitted to patches by least squares."""

import keras
import numpy as np

from keras_parti.layers.embeddings import to_patches
from keras_parti.training.attention_start import (
    level_places,
    look_at_like_codes,
    look_at_neighbours,
)
from keras_parti.training.codebook import parts, shown
from keras_parti.training.least_squares import (
    BATCH,
    as_numpy,
    compiled_numpy,
    least_squares,
)

# Deviation of the biases of both embeddings. Layer norm takes away how bright a patch
# is, and leaves it only beside something that all patches share. 1.5 does worse.
BIAS = 0.5
# Root mean square of the patches' angles on the sphere of codes, which is nearly flat
# there: a decoder that is linear in the codes loses nothing, where it lost half a
# decibel at 0.5 (32.4 and 32.9 dB of held-out photographs at 64×64).
SPREAD = 0.2
# Deviation of the units before the tanh of a head, where it is nearly a line. Of
# held-out photographs, quantised, 1 had 28.4 dB and 0.3 had 29.4.
UNITS = 0.3


class PatchStart(keras.callbacks.Callback):
    """Starts a tower of a ViT-VQGAN from data, before the first epoch.

    The blocks of a fresh model are identities, so that a tower is a map of single
    patches: random features of a patch, and a last dense layer. Least squares give that
    layer. The encoder's gives a patch its principal components, laid on the sphere of
    codes so that distances stay. A codebook placed on these (`CodebookRevival`) is one
    of plain vector quantisation, and that is where training begins, in place of noise.
    The decoder's gives the patch of a code: it is to be started after the codebook.

    Where positions start as sines and cosines, the decoder's first two blocks begin by
    looking around: at the four neighbours that share an edge, a head each, and, where
    codes are normalised, at codes that are alike (`attention_start`). The last layer
    then smooths patches by what lies beside them, which gradients did not find in
    5,000 steps.

    Not in the paper, which starts at random. Of held-out photographs at 64×64, 1,024
    ids of 8,192 codes, plain vector quantisation of their 2×2 pixels has 31.9 dB, and
    33.7 where least squares of the neighbours' codes smooth it; this start has 33.6.

    What least squares found is exact, and Adam's steps are as long as the learning
    rate whatever the gradient: behind fixed ids a decoder alone, at 1e-5, went from
    32.8 dB to 32.6 in 100 steps of 4 pictures. A rate of 0 leaves it where it is.

    Args:
        tokenizer: `ViTVQGAN`, fresh.
        fit: `fit_encoder` or `fit_decoder`.
        sample: function that returns a `tf.data.Dataset` of float
            `(batch, height, width, 3)`, RGB in `[0, 1]`; held in memory as one.
        seed: int. Seed of what is random.
    """

    # An epoch that goes on from its midst has had its beginning.
    moves_weights = True

    def __init__(self, tokenizer, fit, sample, seed=0):
        super().__init__()
        self.tokenizer = tokenizer
        self.fit = fit
        self.sample = sample
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            return
        images = np.concatenate([as_numpy(images) for images in self.sample()])
        self.fit(self.tokenizer, images, self.seed)
        optimizer = self.model.optimizer
        if optimizer.use_ema:  # or averages would remember the noise before
            for variable, average in zip(
                optimizer._trainable_variables,
                optimizer._model_variables_moving_average,
                strict=True,
            ):
                average.assign(variable)


def fit_encoder(model, images, seed=0):
    """Fits the encoder's last layer, so that codes are the components of patches.

    Args:
        model: `ViTVQGAN`, fresh; changed in place.
        images: float NumPy array `(count, height, width, 3)`, RGB in `[0, 1]`.
        seed: int. Seed of the biases.
    """
    config = model.config
    spread_bias(model.encoder.embedding.projection, np.random.default_rng(seed))
    wanted = as_numpy(to_patches(images, config.patch_size))
    codes = code_targets(wanted, config.code_dim, config.normalized_codes)
    fit_last(model.encoder, as_numpy(model.centre(images)), codes)


def fit_decoder(model, images, seed=0):
    """Fits the decoder's first blocks and last layer to the codes that pictures have.

    Args:
        model: `ViTVQGAN`, whose encoder and codebook are what they begin with; changed
            in place.
        images: float NumPy array `(count, height, width, 3)`, RGB in `[0, 1]`.
        seed: int. Seed of the biases and of how the heads turn what they bring.
    """
    rng = np.random.default_rng(seed)
    look_up = compiled_numpy(lambda x: model.quantizer.lookup(model.encode(x)), model)
    steps = shown(parts(images, BATCH), "reading codes")
    codes = np.concatenate([look_up(part) for part in steps])
    decoder, grid_size = model.decoder, model.config.grid_size
    spread_bias(decoder.embedding, rng)
    if model.config.positions == "sine_cosine":
        level_places(decoder, codes)
        look_at_neighbours(decoder, codes, grid_size, rng)
        if model.config.normalized_codes:
            codebook = model.quantizer.normalize(model.quantizer.codebook)
            look_at_like_codes(decoder, codes, grid_size, as_numpy(codebook), rng)
    fit_last(decoder, codes, as_numpy(model.patches(images)))


def spread_bias(dense, rng):
    """Draws the bias of an embedding: see `BIAS`."""
    dense.bias.assign(rng.normal(scale=BIAS, size=dense.bias.shape))


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
    # Mean colours that count 1.5 times made grey walls grey, for 33.25 dB of held-out
    # photographs in place of 33.50, and LPIPS of 0.181 in place of 0.168.
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
    """Scales the units before the tanh of a tower's head: mean 0, deviation `UNITS`.

    Features that all patches share would let Adam's first steps, each as long as the
    learning rate whatever the gradient, shift every pixel at once.

    Args:
        tower: of `ViTVQGAN`, with a tanh head.
        inputs: NumPy array `(count, ...)`, what the tower is called with.
    """
    hidden = tower.head.hidden
    kernel = as_numpy(hidden.kernel)
    given = compiled_numpy(tower.before_head, tower)
    count = sums = squares = 0.0
    for part in shown(parts(inputs, BATCH), "scaling units"):
        units = given(part) @ kernel
        units = units.reshape(-1, kernel.shape[1]).astype("float64")
        count += len(units)
        sums, squares = sums + units.sum(0), squares + np.square(units).sum(0)
    mean = sums / count
    scale = UNITS / np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    hidden.kernel.assign(kernel * scale)
    hidden.bias.assign(-mean * scale)


def fit_last(tower, inputs, targets):
    """Gives a tower's last dense layer the weights that bring it nearest to targets.

    Args:
        tower: of `ViTVQGAN`.
        inputs: NumPy array `(count, ...)`, what the tower is called with.
        targets: float NumPy array `(count, length, output_dim)`.
    """
    if tower.head is not tower.last:
        centre_hidden(tower, inputs)
    pairs = zip(parts(inputs, BATCH), parts(targets, BATCH), strict=True)
    steps = shown(list(pairs), "fitting a tower")
    features = compiled_numpy(tower.features, tower)
    kernel, bias = least_squares((features(x), y) for x, y in steps)
    tower.last.kernel.assign(kernel)
    tower.last.bias.assign(bias)
