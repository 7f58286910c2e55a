"""Where a decoder's attention starts: at neighbouring places, and at like codes."""

import numpy as np

from keras_parti.layers.grid import sine_cosine
from keras_parti.training.codebook import parts, shown
from keras_parti.training.least_squares import (
    BATCH,
    as_numpy,
    compiled_numpy,
    least_squares,
)

# Deviation of the codes beside the positions, whose own is 0.7. A fresh layer's, 0.03,
# needs large weights to be told from these; one of 1 blurs where the heads look.
CONTENT = 0.1
# What products of sines and cosines are multiplied by, to logits: a neighbour's key
# then has 0.96 of the weight at 32×32 places.
SHARPNESS = 8.0
# Rows and columns from a place to what the heads of the first block look at.
NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))
# Logits by which a code is less looked at that is as far away as the nearest other one
# of the codebook. Held-out photographs had 33.23 dB at 0.03, 33.41 at 0.1 and 33.39 at
# 0.3, where even areas are less smooth.
LIKENESS = 0.1
# Share of the inputs' mean square that least squares of queries and keys add to each
# one's: 1e-4 loses how high above the sphere's middle a code is, whose deviation is a
# seventieth of a position's, and with it all that looking at like codes brings.
RIDGE = 1e-6
CODES = 1024  # whose nearest other code is looked for


def level_places(tower, vectors):
    """Gives what stands in each place of a tower one deviation.

    Layer norm divides by it. Where places have their own, as sines and cosines beside a
    bias do (4 %), the same code is another one in each place, and what blocks compare
    is blurred. Codes are scaled to `CONTENT` first, so that they change it little.

    Args:
        tower: the decoder of a `ViTVQGAN` whose positions are sines and cosines; its
            embedding and positions are changed in place.
        vectors: float NumPy array `(count, length, code_dim)`, what it is called with.
    """
    kernel = as_numpy(tower.embedding.kernel)
    flat = vectors.reshape(-1, len(kernel))
    spread = np.cov(flat.T)
    deviation = np.sqrt(np.einsum("ie,ij,je->e", kernel, spread, kernel).mean())
    if deviation > 0:  # or all patches have one code
        kernel = kernel * (CONTENT / deviation)
        tower.embedding.kernel.assign(kernel)

    shared = flat.mean(0) @ kernel + as_numpy(tower.embedding.bias)
    table = as_numpy(tower.positions.positions) + shared
    deviations = table.std(-1, keepdims=True)
    level = (table - table.mean(-1, keepdims=True)) * deviations.mean() / deviations
    tower.positions.positions.assign(level - shared)


def look_at_neighbours(tower, vectors, grid_size, rng):
    """Lets the heads of a tower's first block bring the codes of neighbouring places.

    Queries are to be the sines and cosines of a place, and keys those of the place to
    whose side they lie: their products are largest where these are one place. At an
    edge a head looks at the nearest places there are.

    Args:
        tower: the decoder of a `ViTVQGAN`, with `level_places`; changed in place.
        vectors: float NumPy array `(count, length, code_dim)`, what it is called with.
        grid_size: int. Places along each side.
        rng: `numpy.random.Generator`.
    """
    heads, width = _heads(tower)
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
    _start_block(tower, 0, vectors, lambda _: (queries, keys), rng)


def look_at_like_codes(tower, vectors, grid_size, codebook, rng):
    """Lets the heads of a tower's second block bring the mean of like codes around.

    Queries and keys are to be the sines and cosines of a place, and the code there: of
    two codes on the sphere the product falls with half their squared distance. So an
    even area, whose codes vary by the rounding of the quantizer alone, is smoothed, and
    an edge is not: a bilateral filter.

    A tower of one block, or whose heads are too narrow for a place beside a code, is
    left as it is.

    Args:
        tower: the decoder of a `ViTVQGAN`, with `look_at_neighbours`; changed in place.
        vectors: float NumPy array `(count, length, code_dim)`, what it is called with:
            of codes on the sphere.
        grid_size: int. Places along each side.
        codebook: float NumPy array `(num_codes, code_dim)`, of unit vectors.
        rng: `numpy.random.Generator`.
    """
    heads, width = _heads(tower)
    waves_width = (width - codebook.shape[1]) // 4 * 4
    if len(tower.blocks) < 2 or waves_width < 4:
        return
    waves = sine_cosine(grid_size, grid_size, waves_width)
    # Logits fall by half the squared distance.
    scale = np.sqrt(2 * LIKENESS / nearest_other(codebook))
    rest = width - waves_width - codebook.shape[1]

    def places_and_codes(part):
        both = [np.broadcast_to(waves, (len(part), *waves.shape)), part * scale]
        both = np.pad(np.concatenate(both, axis=-1), ((0, 0), (0, 0), (0, rest)))
        both = np.tile(both * width**0.25, heads)
        return both, both

    _start_block(tower, 1, vectors, places_and_codes, rng)


def nearest_other(codebook):
    """Returns the mean squared distance of a code to the nearest other one.

    Args:
        codebook: float NumPy array `(num_codes, code_dim)`; some `CODES` of them are
            compared with all.
    """
    codebook = codebook.astype("float64")  # of distances near 0, products near 1
    asked = np.arange(0, len(codebook), -(-len(codebook) // CODES))
    squares = np.square(codebook).sum(-1)
    distances = squares[asked, None] + squares - 2 * codebook[asked] @ codebook.T
    distances[np.arange(len(asked)), asked] = np.inf
    return max(distances.min(-1).mean(), 1e-12)


def _heads(tower):
    attention = tower.blocks[0].attention
    heads = attention.num_heads
    return heads, attention.query.kernel.shape[1] // heads


def _start_block(tower, index, vectors, wanted, rng):
    """Gives a block's heads the queries and keys wanted, and codes as values.

    All are least squares of what the block is given. The values are turned at random,
    so that in what the heads bring each has directions of its own.

    Args:
        tower: the decoder of a `ViTVQGAN`; changed in place.
        index: int. Which block; those before it are as they will be.
        vectors: float NumPy array `(count, length, code_dim)`, what it is called with.
        wanted: function of some of them to queries and keys, `(length, embed)` each or
            `(count, length, embed)`.
        rng: `numpy.random.Generator`.
    """
    block = tower.blocks[index]
    attention = block.attention
    heads, width = _heads(tower)
    mean, deviation, dim = vectors.mean((0, 1)), vectors.std(), vectors.shape[-1]
    turns = [_turn(rng, max(width, dim))[:dim, :width] for _ in range(heads)]
    values = np.concatenate(turns, axis=1) / deviation

    def given(part):
        x = tower.positions(tower.embedding(part))
        for before in tower.blocks[:index]:
            x = before(x)
        return block.attention_norm(x)

    given = compiled_numpy(given, tower)

    def pairs():
        for part in shown(parts(vectors, BATCH), "fitting a block"):
            own = (part - mean) @ values
            targets = [np.broadcast_to(x, own.shape) for x in wanted(part)]
            yield given(part), np.concatenate([*targets, own], axis=-1)

    kernel, bias = least_squares(pairs(), RIDGE)
    layers = (attention.query, attention.key, attention.value)
    kernels, biases = np.split(kernel, 3, axis=1), np.split(bias, 3)
    for dense, own_kernel, own_bias in zip(layers, kernels, biases, strict=True):
        dense.kernel.assign(own_kernel)
        dense.bias.assign(own_bias)
    attention.output_projection.kernel.assign(_turn(rng, heads * width))


def _turn(rng, size):
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.normal(size=(size, size)))[0]
