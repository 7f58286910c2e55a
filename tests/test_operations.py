"""The share of the machine that training makes use of follows from the equations."""

import types

import numpy as np
import pytest

from keras_parti.models import Parti
from keras_parti.models.operations import parti_step_flops
from keras_parti.training import figures
from keras_parti.training.figures import RunFigures, measured_peak, product_seconds

SIZES = {"text_length": 7, "num_tokens": 25, "dim": 6, "heads": 2, "mlp_dim": 13}
MORE = {"encoder_layers": 2, "decoder_layers": 3, "num_codes": 11}


def seen_by_hand(kernel, wraparound, width=5, length=25):
    """Pairs of query and key, each looked at: equation by equation, slowly."""
    count, reach = 0, (kernel or 0) // 2
    for query in range(length):
        for key in range(query + 1):
            if kernel is None:
                count += 1
                continue
            offsets = {
                dy * width + dx
                for dy in range(reach + 1)
                for dx in range(-reach, reach + 1)
                if wraparound or 0 <= query % width - dx < width
            }
            count += query - key in offsets
    return count


@pytest.mark.parametrize(
    ("kernel", "layers", "wraparound"),
    [(None, None, True), (3, None, True), (3, None, False), (3, (1,), True)],
)
def test_operations_are_those_of_each_weight_and_of_each_pair(
    kernel, layers, wraparound
):
    model = Parti.from_preset(
        "parti_tiny",
        **SIZES,
        **MORE,
        attention_kernel=kernel,
        window_layers=layers,
        attention_wraparound=wraparound,
    )
    total, batch = 0, 17
    for weight in model.weights:
        if not weight.path.endswith("/kernel"):
            continue
        of_text = weight.path.startswith("encoder") or (
            "cross_attention/key" in weight.path
            or "cross_attention/value" in weight.path
        )
        places = SIZES["text_length"] if of_text else SIZES["num_tokens"]
        total += 2 * batch * places * np.prod(weight.shape)
    kernels = [kernel if layers is None or i in layers else None for i in range(3)]
    pairs = 2 * 7 * 7 + 3 * 25 * 7
    pairs += sum(seen_by_hand(each, wraparound) for each in kernels)
    # A query and a key are multiplied, and a weight and a value.
    total += 2 * 2 * batch * pairs * SIZES["dim"]
    found = parti_step_flops(model.config, batch)
    assert sum(found.values()) == pytest.approx(3 * total, rel=1e-12)


@pytest.mark.parametrize("replicas", [None, 3])
def test_utilisation_is_operations_by_seconds_by_peak(monkeypatch, replicas):
    now = [100.0]
    monkeypatch.setattr(figures.time, "perf_counter", lambda: now[0])
    optimizer = types.SimpleNamespace(learning_rate=0.5, gradient_norm=2.0)
    model = types.SimpleNamespace(optimizer=optimizer)
    if replicas:
        strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
        model.distribute_strategy = strategy
    callback = RunFigures(19, flops_per_step=7e9, peak_flops=5e9)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    for batch in range(11):
        now[0] += 2.0
        callback.on_train_batch_end(batch)
    now[0] += 50.0  # of validation
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs["mfu"] == pytest.approx(11 * 7e9 / 22.0 / (5e9 * (replicas or 1)))
    assert logs["tokens_per_second"] == pytest.approx(11 * 19 / 22.0)
    plain = RunFigures(19)
    plain.set_model(model)
    plain.begun, plain.ended, plain.steps = 0.0, 1.0, 1
    plain.on_epoch_end(0, logs := {})
    assert "mfu" not in logs


@pytest.mark.parametrize(
    ("rate", "side"), [(1e9, 512), (1e12, 2048), (1e14, 8192), (1e18, 16_384)]
)
def test_the_peak_is_that_of_a_product_that_takes_long_enough(monkeypatch, rate, side):
    asked = []

    def seconds(side, dtype):
        asked.append((side, dtype))
        return 2.0 * side**3 / rate

    monkeypatch.setattr(figures, "product_seconds", seconds)
    assert measured_peak("bfloat16") == pytest.approx(rate)
    assert asked[-1] == (side, "bfloat16")
    assert asked[0] == (512, "bfloat16")


def test_the_fastest_product_of_all_epochs_is_the_peak(monkeypatch):
    rates = iter([2e9, 5e9, 4e9])
    monkeypatch.setattr(figures, "measured_peak", lambda dtype: next(rates))
    optimizer = types.SimpleNamespace(learning_rate=0.5, gradient_norm=2.0)
    callback = RunFigures(19, flops_per_step=7e9)
    callback.set_model(
        types.SimpleNamespace(optimizer=optimizer, compute_dtype="float32")
    )
    found = []
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        callback.begun, callback.ended, callback.steps = 0.0, 10.0, 3
        callback.on_epoch_end(epoch, logs := {})
        found.append(logs["mfu"])
    expected = [3 * 7e9 / 10 / peak for peak in (2e9, 5e9, 5e9)]
    assert found == pytest.approx(expected)


def test_a_product_is_timed_on_the_machine():
    assert 0 < product_seconds(64, "float32", rounds=1) < 60
