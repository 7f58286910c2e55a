"""Where a Parti looks: what its tokens got as probabilities, what its words did."""

import contextlib

import numpy as np
from keras import ops

from keras_parti.models import Parti, TextToImage

WORD = "▁"  # begins a piece that begins a word


def token_probabilities(
    parti: Parti, text_ids: np.ndarray, image_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes what a picture's ids were worth to the model, given the text.

    Args:
        parti: `Parti`.
        text_ids: int32 `(batch, text_length)`.
        image_ids: int32 `(batch, num_tokens)`.

    Returns:
        A dict of float32 NumPy `(batch, num_tokens)`: `log_probability` of each id,
        without guidance and at temperature 1, whose mean is the picture's score; and
        `entropy` of the distribution it came from, in nats.
    """
    logits = parti({"text_ids": text_ids, "image_ids": image_ids}, training=False)
    logs = ops.log_softmax(logits, axis=-1)  # (batch, num_tokens, num_codes)
    ids = ops.cast(image_ids, "int32")[..., None]
    chosen = ops.take_along_axis(logs, ids, axis=-1)[..., 0]
    entropy = -ops.sum(ops.exp(logs) * logs, axis=-1)
    return {
        "log_probability": ops.convert_to_numpy(chosen),
        "entropy": ops.convert_to_numpy(entropy),
    }


def text_attention(
    parti: Parti, text_ids: np.ndarray, image_ids: np.ndarray
) -> np.ndarray:
    """Computes how much each id of a picture looked at each piece of the text.

    Args:
        parti: `Parti`.
        text_ids: int32 `(batch, text_length)`.
        image_ids: int32 `(batch, num_tokens)`.

    Returns:
        float32 NumPy `(batch, num_tokens, text_length)`, the mean over heads and
        decoder blocks of the weights of cross-attention; rows sum to 1.
    """
    with contextlib.ExitStack() as stack:
        seen = [
            stack.enter_context(_recorded(block.cross_attention))
            for block in parti.decoder
        ]
        parti({"text_ids": text_ids, "image_ids": image_ids}, training=False)
    return np.mean([ops.convert_to_numpy(weights) for (weights,) in seen], axis=0)


def word_attention(
    chain: TextToImage, prompt: str, image_ids: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Sums the attention to the pieces of each word of a prompt.

    Args:
        chain: `TextToImage`.
        prompt: str.
        image_ids: int32 `(num_tokens,)`. A picture drawn for the prompt.

    Returns:
        A list of pairs: the word, as the vocabulary reads it, and its share of the
        attention, float32 `(height, width)` over the grid of ids. What looks at the
        ends of the text is in no word. Empty for the empty prompt.
    """
    text_ids = chain.vocabulary.encode([prompt])
    weights = text_attention(chain.parti, text_ids, image_ids[None])[0]
    side = chain.parti.config.width
    words = _words(chain.vocabulary, text_ids[0])
    return [
        (word, weights[:, places].sum(axis=1).reshape(side, side))
        for word, places in words
    ]


def _words(vocabulary, text_ids):
    """The words of a row of ids: (text, places of their pieces)."""
    length = int(np.count_nonzero(text_ids)) - 2  # without bos, eos and padding
    pieces = vocabulary.pieces(text_ids[1 : 1 + length])
    groups = []
    for place, piece in enumerate(pieces, 1):
        if piece.startswith(WORD) or not groups:
            groups.append([])
        groups[-1].append(place)
    return [
        (vocabulary.decode([[int(text_ids[i]) for i in group]])[0].strip(), group)
        for group in groups
    ]


@contextlib.contextmanager
def _recorded(layer):
    """Yields a list that receives the layer's weights, a mean over heads, a call."""
    seen, call = [], layer.call

    def record(inputs, memory=None, attention_mask=None, training=None):
        weights = layer.attention_weights(inputs, memory, attention_mask)
        seen.append(ops.mean(weights, axis=1))
        return call(inputs, memory, attention_mask, training=training)

    layer.call = record
    try:
        yield seen
    finally:
        del layer.call
