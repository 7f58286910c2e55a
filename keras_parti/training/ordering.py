"""The order in which stored examples are learned, in memory that has a bound."""

import tensorflow as tf

# Examples that are shuffled at a time: 0.3 GB at 1024 ids. A set of no more is also
# kept in memory, for to unpack it anew each time would take longer than a small step.
SHUFFLED = 65_536


def shuffled(dataset: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Returns a dataset that repeats for ever, in an order that the seed fixes.

    Args:
        dataset: `tf.data.Dataset` of known length, of ids and texts, not pictures.
        seed: int.
    """
    count = max(1, int(dataset.cardinality()))
    return kept(dataset).shuffle(min(count, SHUFFLED), seed=seed).repeat()


def kept(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset that is in memory after it was read once, if it is small."""
    return dataset.cache() if int(dataset.cardinality()) <= SHUFFLED else dataset
