"""TensorBoard's scalars, safe from a kill."""

import keras


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
