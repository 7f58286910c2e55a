"""Batches of few sizes: rows are filled up inside the graph, and cut off again.

What a matrix product rounds to, and what its first run costs, depends on its number of
rows. With few numbers of them, all can be tested and warmed up, whatever requests send.
"""

import tensorflow as tf

# Rows a request may have at most, and the sizes that fewer are filled up to.
ROW_SIZES = (1, 2, 4, 8, 16)

# Rows of ids drawn together, those without a condition counted. TensorFlow multiplies 2
# to 8 rows by a matrix in the same order, and one or 16 in others: with the sizes 2, 4
# and 8 alone a row's numbers are the same to the last bit, whatever is drawn beside it.
# (Drawn with 16, one picture in 120 differed.) Two parts of 8 rows abreast take as long
# on two cores as one of 16, 1.7 s, and one filled up to two rows as long as one.
DRAWN_TOGETHER = 8

# Pictures drawn at once, where several are drawn for a row: memory is bounded by it.
MAX_DRAWN = 64


def sizes_for(num_samples):
    """The sizes for requests that draw `num_samples` pictures a row."""
    few = tuple(size for size in ROW_SIZES if size * num_samples <= MAX_DRAWN)
    return few or ROW_SIZES[:1]


def drawing_sizes(guided):
    """The sizes of parts of rows to draw, an int32 tensor.

    Args:
        guided: bool tensor, scalar. Whether another row is drawn for each, without a
            condition.
    """
    sizes = [size for size in ROW_SIZES if 1 < size <= DRAWN_TOGETHER]
    return tf.constant(sizes) // (1 + tf.cast(guided, "int32"))


def limited(column):
    """The same tensor, checked to have as many rows as a request may have.

    One of any length would hold the server up for as long as it wants.
    """
    rows = tf.shape(column)[0]
    fits = tf.debugging.Assert(
        (rows >= 1) & (rows <= ROW_SIZES[-1]),
        [f"A request must have 1 to {ROW_SIZES[-1]} rows. Received:", rows],
    )
    with tf.control_dependencies([fits]):
        return tf.identity(column)


def in_sizes(function, columns):
    """Calls a function with as many rows as the next of `ROW_SIZES`.

    Args:
        function: function of the columns by name, to a dict of tensors by rows.
        columns: dict of name to tensor, all of the same number of rows.

    Returns:
        What the function returns, of the original rows.
    """
    columns, rows = _limited(columns)
    filled = _fill(columns, rows, _next_size(rows, ROW_SIZES))
    outputs = function(**filled)
    return {name: output[:rows] for name, output in outputs.items()}


def in_chunks(function, columns, sizes, specs, abreast=1):
    """The same with other sizes, the largest of them several times if needed.

    A server that joins requests joins those of all signatures up to the same number
    of rows. Where that is too much at once, it is done in parts.

    Args:
        function: as `in_sizes` takes it.
        columns: as `in_sizes` takes them.
        sizes: tuple of int, rising, or int32 tensor of them.
        specs: dict of name to `tf.TensorSpec`, what the function returns.
        abreast: int. Parts that may be at work at a time.

    Returns:
        As `in_sizes`.
    """
    columns, rows = _limited(columns)
    size = _next_size(tf.minimum(rows, sizes[-1]), sizes)
    chunks = -(-rows // size)
    filled = {
        name: tf.reshape(column, tf.concat([[chunks, size], tf.shape(column)[1:]], 0))
        for name, column in _fill(columns, rows, chunks * size).items()
    }
    outputs = tf.map_fn(
        lambda part: function(**part),
        filled,
        parallel_iterations=abreast,
        fn_output_signature=specs,
    )
    return {
        name: tf.reshape(output, [-1, *output.shape[2:]])[:rows]
        for name, output in outputs.items()
    }


def _limited(columns):
    columns = {name: limited(column) for name, column in columns.items()}
    return columns, tf.shape(next(iter(columns.values())))[0]


def _next_size(rows, sizes):
    stated = tf.convert_to_tensor(sizes)
    return stated[tf.searchsorted(stated, rows[None])[0]]


def _fill(columns, rows, size):
    # Repeated, the last row asks for nothing that costs more than the rows there are:
    # filtering, for one, is done for all where one of them wants it.
    which = tf.minimum(tf.range(size), rows - 1)
    return {name: tf.gather(column, which) for name, column in columns.items()}
