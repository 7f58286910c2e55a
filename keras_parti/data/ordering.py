"""The order in which examples are learned: a function of a seed and the pass alone.

`Dataset.shuffle` draws another order whenever an iterator is made. Keras makes two for
one `fit` under a strategy, and a run that goes on makes its own: each has to find what
the others found.
"""

from collections.abc import Sequence

import tensorflow as tf

# Examples that are shuffled at a time: 0.3 GB at 1024 ids. A set of no more is also
# kept in memory, for to unpack it anew each time would take longer than a small step.
SHUFFLED = 65_536


def in_order(
    dataset: tf.data.Dataset,
    seed: int | None,
    repeat: bool = True,
    skipped: int = 0,
    count: int | None = None,
    at_a_time: int = SHUFFLED,
) -> tf.data.Dataset:
    """Returns a dataset in an order that the seed fixes, another one in every pass.

    The same whenever it is gone through, in every process, and whatever
    `tf.random.set_seed` was told.

    Args:
        dataset: `tf.data.Dataset` that has an order.
        seed: int, or None to keep that order.
        repeat: bool. Whether to start over for ever.
        skipped: int. First examples that are left out. Of whole passes none is read.
        count: int or None. Examples of the dataset; None where it knows its length.
        at_a_time: int. Examples that are held to be shuffled.
    """
    count = int(dataset.cardinality()) if count is None else count
    if not count:
        return dataset  # for ever nothing would be to hang
    first, rest = divmod(skipped, count) if repeat else (0, skipped)
    if seed is None:
        return (dataset.repeat() if repeat else dataset).skip(rest)
    numbers = tf.data.Dataset.range(first, 2**62 if repeat else 1)
    at_a_time = min(count, at_a_time)
    passes = numbers.flat_map(lambda n: of_pass(dataset, seed, n, at_a_time))
    length = tf.data.INFINITE_CARDINALITY if repeat else count
    return passes.apply(tf.data.experimental.assert_cardinality(length)).skip(rest)


def of_pass(dataset, seed, number, at_a_time):
    """Returns a dataset in the order of one pass, inside a function of `flat_map`.

    Args:
        dataset: `tf.data.Dataset`.
        seed: int.
        number: int64 tensor. Which pass it is.
        at_a_time: int. Examples that are held to be shuffled.
    """
    # The seed of the function's graph, which else is that of `set_seed`: any but 0,
    # which would have TensorFlow compare the other seed, a tensor.
    tf.compat.v1.set_random_seed(1)
    own = 1_000_003 * seed % 2**31 + number
    return dataset.shuffle(at_a_time, own, reshuffle_each_iteration=False)


def mixed(
    datasets: Sequence[tf.data.Dataset], weights: Sequence[float], seed: int
) -> tf.data.Dataset:
    """Returns a dataset that draws each example from one of several, for ever.

    From which is a function of the seed and the example's place alone.

    Args:
        datasets: list of endless `tf.data.Dataset`.
        weights: list of positive floats: how often an example is drawn from each.
        seed: int.
    """
    logits = tf.math.log([[float(weight) for weight in weights]])

    def draw(place):
        own = tf.stack([tf.constant(seed, tf.int64), place])
        return tf.random.stateless_categorical(logits, 1, own)[0, 0]

    places = tf.data.Dataset.range(2**62)
    return tf.data.Dataset.choose_from_datasets(datasets, places.map(draw))


def counted(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset that knows its length, after going through it once."""
    count = dataset.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def kept(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset that is in memory after it was read once, if it is small.

    Args:
        dataset: `tf.data.Dataset` of known length, of ids and texts, not pictures.
    """
    return dataset.cache() if int(dataset.cardinality()) <= SHUFFLED else dataset
