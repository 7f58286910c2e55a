"""Where a tokenizer starts: its towers fitted to patches by least squares."""

import keras
import numpy as np
from keras import ops

from keras_parti.layers.embeddings import to_patches
from keras_parti.layers.grid import sine_cosine
from keras_parti.training.codebook import parts, shown

BATCH = 16  # pictures whose features are held at once: 134 MB of 1,024 patches × 2,048
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
# Share of the features' mean square that least squares add to each one's. Less gives
# hardly more (0.1 dB at 1e-7), by weights so large that Adam's first steps destroy it.
RIDGE = 1e-4
# Deviation of the codes beside the positions, whose own is 0.7. A fresh layer's, 0.03,
# needs large weights to be told from these; one of 1 blurs where the heads look.
CONTENT = 0.1
# What products of sines and cosines are multiplied by, to logits: a neighbour's key
# then has 0.96 of the weight at 32×32 places.
SHARPNESS = 8.0
# Rows and columns from a place to what the heads of the first block look at.
NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class PatchStart(keras.callbacks.Callback):
    """Starts a tower of a ViT-VQGAN from data, before the first epoch.

    The blocks of a fresh model are identities, so that a tower is a map of single
    patches: random features of a patch, and a last dense layer. Least squares give that
    layer. The encoder's gives a patch its principal components, laid on the sphere of
    codes so that distances stay. A codebook placed on these (`CodebookRevival`) is one
    of plain vector quantisation, and that is where training begins, in place of noise.
    The decoder's gives the patch of a code: it is to be started after the codebook.

    Where positions start as sines and cosines, the decoder's first block begins by
    looking at neighbours: a head for each of the four that share an edge brings its
    code. The last layer then smooths patches by what lies beside them, which gradients
    did not find in 5,000 steps.

    Not in the paper, which starts at random. Of held-out photographs at 64×64, 1,024
    ids of 8,192 codes, plain vector quantisation of their 2×2 pixels has 31.9 dB, and
    33.7 where least squares of the neighbours' codes smooth it; this start has 33.0.

    What least squares found is exact, and Adam's steps are as long as the learning
    rate whatever the gradient: behind fixed ids the decoder alone, at 1e-5, went from
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
    spread_bias(model.encoder.embedding.projection, seed)
    wanted = as_numpy(to_patches(images, config.patch_size))
    codes = code_targets(wanted, config.code_dim, config.normalized_codes)
    fit_last(model.encoder, as_numpy(model.centre(images)), codes)


def fit_decoder(model, images, seed=0):
    """Fits the decoder's first block and last layer to the codes that pictures have.

    Args:
        model: `ViTVQGAN`, whose encoder and codebook are what they begin with; changed
            in place.
        images: float NumPy array `(count, height, width, 3)`, RGB in `[0, 1]`.
        seed: int. Seed of the biases and of the turns of `look_at_neighbours`.
    """
    codes = np.concatenate(
        [
            as_numpy(model.quantizer.lookup(model.encode(part)))
            for part in shown(parts(images, BATCH), "reading codes")
        ]
    )
    spread_bias(model.decoder.embedding, seed)
    if model.config.positions == "sine_cosine":
        rng = np.random.default_rng(seed)
        look_at_neighbours(model.decoder, codes, model.config.grid_size, rng)
    fit_last(model.decoder, codes, as_numpy(model.patches(images)))


def spread_bias(dense, seed):
    """Draws the bias of an embedding: see `BIAS`."""
    rng = np.random.default_rng(seed)
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


def look_at_neighbours(tower, vectors, grid_size, rng):
    """Lets the heads of a tower's first block bring the codes of neighbouring places.

    Queries are to be the sines and cosines of a place, and keys those of the place to
    whose side they lie: their products are largest where these are one place. Values
    are to be the codes, turned at random. All three are least squares of what the block
    is given. At an edge a head looks at the nearest places there are.

    Args:
        tower: the decoder of a `ViTVQGAN` whose positions are sines and cosines; its
            first block is changed in place.
        vectors: float NumPy array `(count, length, code_dim)`, what it is called with.
        grid_size: int. Places along each side.
        rng: `numpy.random.Generator`.
    """
    kernel = as_numpy(tower.embedding.kernel)
    deviation = np.sqrt(np.mean(np.var(vectors.reshape(-1, len(kernel)) @ kernel, 0)))
    tower.embedding.kernel.assign(kernel * (CONTENT / deviation))

    block = tower.blocks[0]
    attention = block.attention
    heads = attention.num_heads
    width = attention.query.kernel.shape[1] // heads
    around = grid_size + 2
    table = np.zeros((around, around, width), "float32")  # with a rim, for neighbours
    waves = sine_cosine(around, around, width // 4 * 4)
    table[..., : waves.shape[1]] = waves.reshape(around, around, -1)
    # Products of two such are divided by the square root of the width.
    table *= SHARPNESS**0.5 * width**0.25

    def places(row, column):
        rows, columns = (slice(1 + x, 1 + x + grid_size) for x in (row, column))
        return table[rows, columns].reshape(grid_size**2, width)

    steps = [NEIGHBOURS[head % len(NEIGHBOURS)] for head in range(heads)]
    queries = np.concatenate([places(0, 0)] * heads, axis=1)
    keys = np.concatenate([places(-row, -column) for row, column in steps], axis=1)
    codes = (vectors - vectors.mean((0, 1))) / vectors.std()
    turns = [_turn(rng, max(width, codes.shape[-1])) for _ in range(heads)]
    values = np.concatenate([turn[: codes.shape[-1], :width] for turn in turns], axis=1)

    placed = np.concatenate([queries, keys], axis=1)

    def pairs():
        both = zip(parts(vectors, BATCH), parts(codes @ values, BATCH), strict=True)
        for part, own in shown(list(both), "fitting a block"):
            x = block.attention_norm(tower.positions(tower.embedding(part)))
            same = np.broadcast_to(placed, (len(part), *placed.shape))
            yield as_numpy(x), np.concatenate([same, own], axis=-1)

    kernel, bias = least_squares(pairs())
    layers = (attention.query, attention.key, attention.value)
    kernels, biases = np.split(kernel, 3, axis=1), np.split(bias, 3)
    for dense, own_kernel, own_bias in zip(layers, kernels, biases, strict=True):
        dense.kernel.assign(own_kernel)
        dense.bias.assign(own_bias)
    attention.output_projection.kernel.assign(_turn(rng, heads * width))


def _turn(rng, size):
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


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
    count = sums = squares = 0.0
    for part in shown(parts(inputs, BATCH), "scaling units"):
        units = as_numpy(tower.before_head(part)) @ kernel
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
    kernel, bias = least_squares((as_numpy(tower.features(x)), y) for x, y in steps)
    tower.last.kernel.assign(kernel)
    tower.last.bias.assign(bias)


def least_squares(pairs):
    """Returns the kernel and the bias of the dense layer nearest to what it is to give.

    Args:
        pairs: iterable of what it is given, and what it is to give: float NumPy arrays
            `(count, length, inputs)` and `(count, length, outputs)`.

    Returns:
        float64 `(inputs, outputs)` and `(outputs,)`, of least squares with a ridge.
    """
    products = moments = 0.0
    for features, wanted in pairs:
        features = features.reshape(-1, features.shape[-1])
        features = np.pad(features, ((0, 0), (0, 1)), constant_values=1.0)  # the bias
        features = features.astype("float64")
        products = products + features.T @ features
        moments = moments + features.T @ wanted.reshape(len(features), -1)
    ridge = RIDGE * np.trace(products) / len(products)
    weights = np.linalg.solve(products + ridge * np.eye(len(products)), moments)
    return weights[:-1], weights[-1]


def as_numpy(tensor):
    """Returns a tensor as a float32 NumPy array."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))
