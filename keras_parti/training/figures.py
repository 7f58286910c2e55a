"""What a run tells of itself besides its losses."""

import math
import time

import keras
from keras import ops


class RunFigures(keras.callbacks.Callback):
    """Adds the optimiser's and the clock's figures to an epoch's logs.

    `learning_rate`, that of the next step; `gradient_norm`, that of the last update
    before it was clipped; `tokens_per_second`, of training without validation; and
    `perplexity` and `val_perplexity`, e to the power of the losses. Placed before
    `TensorBoard`, which then shows them.

    Args:
        tokens_per_step: int. Tokens that a batch predicts.
    """

    def __init__(self, tokens_per_step):
        super().__init__()
        self.tokens_per_step = tokens_per_step

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        logs["learning_rate"] = float(ops.convert_to_numpy(optimizer.learning_rate))
        logs["gradient_norm"] = float(ops.convert_to_numpy(optimizer.gradient_norm))
        seconds = self.ended - self.begun
        logs["tokens_per_second"] = self.steps * self.tokens_per_step / seconds
        for prefix in ("", "val_"):
            if f"{prefix}loss" in logs:
                # 100 nats: what a run on its way to no number may reach.
                loss = min(100.0, float(logs[f"{prefix}loss"]))
                logs[f"{prefix}perplexity"] = math.exp(loss)
