"""TensorBoard's scalars, safe from a kill, and the settings they belong to."""

import keras
import tensorflow as tf


class Board(keras.callbacks.TensorBoard):
    """Writes the figures of an epoch to the disk before the next one begins.

    Keras' own callback keeps them for up to two minutes: a run killed after its
    checkpoint would go on behind that epoch, and the curves would have a gap.

    Args:
        log_dir: str or path.
    """

    def __init__(self, log_dir):
        super().__init__(log_dir, write_graph=False)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()


def write_hparams(log_dir, values):
    """Notes a run's settings where TensorBoard's HPARAMS page finds them.

    The page has a row for each folder of logs, with its settings beside the last value
    of each scalar that `Board` writes.

    Args:
        log_dir: str or path of TensorBoard's logs.
        values: dict of name to number, str or bool; others are noted as their words,
            and None is left out.
    """
    # Deferred: the plug-in is of TensorBoard, which only training needs.
    from tensorboard.plugins.hparams import api

    plain = {
        name: value if isinstance(value, bool | int | float | str) else words_of(value)
        for name, value in values.items()
        if value is not None
    }
    with tf.summary.create_file_writer(str(log_dir)).as_default():
        api.hparams(plain, trial_id=str(log_dir))


def words_of(value):
    """Lists as the words of a command, pairs such as of a set and its weight by ":"."""
    if isinstance(value, list | tuple):
        between = " " if isinstance(value, list) else ":"
        return between.join(words_of(each) for each in value)
    return str(value)
