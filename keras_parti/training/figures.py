"""What a run tells of itself besides its losses."""

import math
import time

import keras
import tensorflow as tf
from keras import ops

LONG = 0.01  # seconds: beside which starting an operation takes no time
LARGEST = 16_384  # side of the matrices whose product is timed


class RunFigures(keras.callbacks.Callback):
    """Adds the optimiser's and the clock's figures to an epoch's logs.

    `learning_rate`, that of the next step; `gradient_norm`, that of the last update
    before it was clipped; `tokens_per_second`, of training without validation; `mfu`,
    the model FLOP utilisation, the share of what the devices could compute meanwhile
    that the model's equations ask for; and `perplexity` and `val_perplexity`, e to the
    power of the losses. Placed before `TensorBoard`, which then shows them.

    Args:
        tokens_per_step: int. Tokens that a batch predicts.
        flops_per_step: float. Operations that the model's equations ask for in a batch,
            such as the sum of `keras_parti.models.operations.parti_step_flops`. None
            leaves `mfu` out.
        peak_flops: float. Operations a second that one device could do. None measures
            what a matrix product reaches before each epoch, for a tenth of a second,
            and keeps the fastest: the machine may be busy with something else at
            first. With what vendors publish of an accelerator `mfu` is lower.
    """

    def __init__(self, tokens_per_step, flops_per_step=None, peak_flops=None):
        super().__init__()
        self.tokens_per_step = tokens_per_step
        self.flops_per_step = flops_per_step
        self.peak_flops = peak_flops
        self.measured = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        if self.flops_per_step is not None and self.peak_flops is None:
            found = measured_peak(self.model.compute_dtype)
            self.measured = max(self.measured, found)
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
        if self.flops_per_step is not None:
            strategy = getattr(self.model, "distribute_strategy", None)
            replicas = strategy.num_replicas_in_sync if strategy else 1
            peak = (self.peak_flops or self.measured) * replicas
            logs["mfu"] = self.steps * self.flops_per_step / seconds / peak
        for prefix in ("", "val_"):
            if f"{prefix}loss" in logs:
                # 100 nats: what a run on its way to no number may reach.
                loss = min(100.0, float(logs[f"{prefix}loss"]))
                logs[f"{prefix}perplexity"] = math.exp(loss)


def measured_peak(dtype):
    """Measures how fast the first device multiplies square matrices.

    They are doubled until a product takes long enough to be timed.

    Args:
        dtype: str, of the matrices, such as "float32" or "bfloat16".

    Returns:
        float. Operations a second, those of the fastest product.
    """
    side = 512
    while (seconds := product_seconds(side, dtype)) < LONG and side < LARGEST:
        side *= 2
    return 2.0 * side**3 / seconds


def product_seconds(side, dtype, rounds=2):
    """Returns the seconds of the fastest product of `(side, side)` with itself."""
    matrix = tf.cast(tf.random.stateless_uniform((side, side), (3, 5)), dtype)
    times = []
    for _ in range(rounds + 1):  # the first one is slower, and does not decide
        begun = time.perf_counter()
        # To read one number is to wait for all, on any device.
        tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
        times.append(time.perf_counter() - begun)
    return min(times)
