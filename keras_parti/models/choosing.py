"""Which of several pictures are kept: the best by a score, such as a CoCa's."""

import numpy as np
from keras import ops

from keras_parti.pixels import to_floats


def best_first(columns, keep):
    """Chooses the samples of the highest score.

    Args:
        columns: dict of arrays `(rows, samples, ...)`, `score` among them.
        keep: int. How many samples of a row.

    Returns:
        A dict of the same names to arrays `(rows, keep, ...)`, best first. Of equal
        scores the earlier sample comes first, as in the graph that is served.
    """
    score = columns["score"]
    best = np.argsort(-score, axis=1, kind="stable")[:, :keep]
    rows = np.arange(len(score))[:, None]
    return {name: each[rows, best] for name, each in columns.items()}


def reading(reranker, vocabulary):
    """Returns a vocabulary with rows of the length that a reranker reads.

    Args:
        reranker: `CoCa`, trained with that vocabulary.
        vocabulary: `keras_parti.text.Vocabulary` of any length.

    Raises:
        ValueError: where the reranker knows fewer pieces than the vocabulary has.
    """
    from keras_parti.text import Vocabulary

    config = reranker.config
    if vocabulary.size > config.text_vocab_size:
        raise ValueError(
            f"`text_vocab_size` of `reranker` must be at least {vocabulary.size}, the "
            "size of the vocabulary. "
            f"Received: text_vocab_size={config.text_vocab_size}"
        )
    return Vocabulary(vocabulary.model_bytes, config.text_length)


def score_samples(reranker, images, text_ids):
    """Returns how well pictures fit their texts, several for each text or one.

    Args:
        reranker: `CoCa`.
        images: float `(texts · samples, height, width, 3)`, RGB in `[0, 1]`, those of a
            text next to each other. Of another size than the reranker's they are
            resized, smoothed where that makes them smaller.
        text_ids: int32 `(texts, text_length)`. Each is read once.

    Returns:
        float32 `(texts · samples,)`, cosines.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.4
    """
    size = reranker.config.image_size
    if tuple(images.shape[1:3]) != (size, size):
        images = ops.image.resize(images, (size, size), antialias=True)
        images = ops.clip(images, 0.0, 1.0)
    pictures = reranker.image_embedding(images)
    texts = reranker.text_embedding(text_ids)
    dim = texts.shape[-1]
    samples = ops.shape(pictures)[0] // ops.shape(texts)[0]
    pictures = ops.reshape(pictures, (-1, samples, dim))
    return ops.reshape(ops.sum(pictures * texts[:, None], axis=-1), (-1,))


def similarities(coca, images, text_ids, batch_size=64):
    """Returns the cosines of all pictures with all texts.

    Args:
        coca: `CoCa`; a reranker is enough.
        images: uint8 `(pictures, height, width, 3)`, of its size.
        text_ids: int32 `(texts, text_length)`.
        batch_size: int. How many are computed at a time.

    Returns:
        float32 array `(pictures, texts)`.
    """
    vectors = []
    for embed, values in (
        (lambda x: coca.image_embedding(to_floats(x)), images),
        (coca.text_embedding, text_ids),
    ):
        parts = [
            ops.convert_to_numpy(embed(values[start : start + batch_size]))
            for start in range(0, len(values), batch_size)
        ]
        vectors.append(np.concatenate(parts))
    return vectors[0] @ vectors[1].T


def same_texts(texts):
    """Returns which texts are the same, bool `(texts, texts)`.

    Args:
        texts: sequence of str or of bytes.
    """
    _, number = np.unique(np.asarray(texts), return_inverse=True)
    return number[:, None] == number
