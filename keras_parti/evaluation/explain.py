"""One page about one prompt: what was drawn, chosen, likely, and looked at."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from keras_parti.evaluation.attention import token_probabilities, word_attention
from keras_parti.evaluation.gallery import PAPER, grid

if TYPE_CHECKING:
    from keras_parti.models import TextToImage


# From cold to hot, read at even steps between: dark violet, blue, green, yellow.
HEAT = np.array(
    [(48, 16, 84), (42, 88, 152), (34, 148, 140), (122, 204, 94), (252, 232, 64)], float
)
SIZE = 176  # of a picture on the page, in pixels
COLUMNS = 8


def explain_page(
    prompt: str, drawn: dict[str, np.ndarray], chain: "TextToImage | None" = None
) -> Image.Image:
    """Draws the page.

    Args:
        prompt: str.
        drawn: dict of one prompt, as `TextToImage.generate` returns it with all samples
            kept: `images` uint8 `(1, samples, height, width, 3)`, `score` and `ids`,
            best first.
        chain: `TextToImage` that drew it, for the probabilities of the ids and the
            attention of the words; None leaves these out.

    Returns:
        A `PIL.Image.Image`.
    """
    images, scores = drawn["images"][0], drawn["score"][0]
    captions = [f"{score:.2f}" for score in scores]
    captions[0] = f"chosen: {captions[0]}"
    title = f"“{prompt}”" if prompt else "(no prompt)"
    parts = [grid(images, COLUMNS, captions, SIZE, title)]
    if chain is not None:
        parts += _inside(prompt, images[0], drawn["ids"][0, :1], chain)
    return _stack(parts)


def heat_map(values, low, high):
    """Paints numbers: dark where they are low, bright where they are high.

    Args:
        values: float `(height, width)`.
        low: float. What is darkest.
        high: float. What is brightest.

    Returns:
        uint8 `(height, width, 3)`.
    """
    places = np.clip((values - low) / max(high - low, 1e-9), 0.0, 1.0) * (len(HEAT) - 1)
    below = np.minimum(places.astype(int), len(HEAT) - 2)
    share = (places - below)[..., None]
    return np.rint(HEAT[below] * (1 - share) + HEAT[below + 1] * share).astype(np.uint8)


def overlay(image, values):
    """Lays a heat map over a picture: its grey, and colour where attention is high.

    Args:
        image: uint8 `(height, width, 3)`.
        values: float `(rows, columns)`; the highest is brightest, the lowest darkest.

    Returns:
        uint8 `(height, width, 3)`.
    """
    heat = Image.fromarray(heat_map(values, values.min(), values.max()))
    heat = heat.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR)
    grey = image.mean(axis=-1, keepdims=True)
    return np.rint(0.45 * grey + 0.55 * np.asarray(heat)).astype(np.uint8)


def _inside(prompt, image, ids, chain):
    text_ids = chain.vocabulary.encode([prompt])
    found = token_probabilities(chain.parti, text_ids, ids)
    side = chain.parti.config.width
    logs, entropy = (
        found[name][0].reshape(side, side) for name in ("log_probability", "entropy")
    )
    probability, most = np.exp(logs), entropy.max()
    maps = [
        image,
        _enlarged(heat_map(probability, 0.0, 1.0), image),
        _enlarged(heat_map(entropy, 0.0, most), image),
    ]
    captions = [
        "chosen",
        f"probability of each token: {probability.min():.2g} to "
        f"{probability.max():.2g}, bright is 1",
        f"entropy before each token: {entropy.min():.2g} to {most:.2g} nats, bright "
        "is the latter",
    ]
    parts = [grid(np.stack(maps), COLUMNS, captions, SIZE, "How sure the model was")]
    words = word_attention(chain, prompt, ids[0])
    if words:
        parts.append(
            grid(
                np.stack([overlay(image, values) for _, values in words]),
                COLUMNS,
                [f"{word}: {values.mean():.0%}" for word, values in words],
                SIZE,
                "Where it looked at each word, and how much of its attention that is",
            )
        )
    return parts


def _enlarged(small, image):
    """The map in the picture's size, its cells with sharp edges."""
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.NEAREST))


def _stack(parts):
    width = max(part.width for part in parts)
    page = Image.new("RGB", (width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    return page
