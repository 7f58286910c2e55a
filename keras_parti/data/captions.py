"""Which of a picture's texts stands for it, each time that it is shown."""

import tensorflow as tf


def draw_text(example, seed, canonical_rate=0.5, label_rate=0.0):
    """Draws one of the texts of a picture.

    Args:
        example: dict of string tensors: `captions` and `synonyms`, `(texts,)`, and
            `name`, scalar.
        seed: pair of ints, or of integer tensors; or None for the first caption. Equal
            seeds draw the same.
        canonical_rate: float in `[0, 1]`. How often the first caption is drawn; else
            any caption or synonym is.
        label_rate: float in `[0, 1]`. How often the name is the text instead. A
            picture without captions always has its name.

    Returns:
        String tensor, scalar.
    """
    label = example["name"]
    texts = tf.concat([example["captions"], example["synonyms"], label[None]], 0)
    if seed is None:
        return texts[0]
    draws = tf.random.stateless_uniform([3], seed)
    # All but the label, where there is anything else.
    count = tf.cast(tf.maximum(1, tf.size(texts) - 1), tf.float32)
    other = texts[tf.cast(draws[1] * count, tf.int32)]
    text = tf.where(draws[0] < canonical_rate, texts[0], other)
    labelled = (draws[2] < label_rate) & (label != "")
    return tf.where(labelled, label, text)
