"""A number that is none ends a run, by its name."""

import keras
import numpy as np
import pytest

from keras_parti.training.guards import StopAtNonFinite

pytest.importorskip("tensorflow")


def run(bad_step, terms=("first", "second"), value=np.nan, epochs=2):
    """Trains seven steps an epoch; the targets of one batch are no numbers."""
    inputs = keras.Input((3,))
    model = keras.Model(
        inputs, {name: keras.layers.Dense(1, name=name)(inputs) for name in terms}
    )
    model.compile("sgd", loss=dict.fromkeys(terms, "mse"), jit_compile=False)
    x = np.ones((7 * 2, 3), "float32")
    y = {name: np.ones((7 * 2, 1), "float32") for name in terms}
    y[terms[-1]][2 * (bad_step - 1)] = value
    model.fit(
        x,
        y,
        batch_size=2,
        epochs=epochs,
        initial_epoch=epochs - 2,
        shuffle=False,
        verbose=0,
        callbacks=[StopAtNonFinite(done=7 * (epochs - 2))],
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_step_and_the_term_are_named(value):
    message = r"at step 3: `second_loss` must be finite. Received: (nan|inf)"
    with pytest.raises(ValueError, match=message):
        run(3, value=value)


def test_steps_before_a_resume_count():
    with pytest.raises(ValueError, match=r"at step 39: `second_loss`"):
        run(4, epochs=7)


def test_the_sum_is_named_where_there_is_nothing_else():
    with pytest.raises(ValueError, match=r"at step 2: `loss`"):
        run(2, terms=("only",))


def test_finite_terms_stop_nothing():
    run(1, value=0.0)


def test_infinite_weights_are_found_before_they_are_saved():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense")])
    guard = StopAtNonFinite()
    guard.set_model(model)
    guard.on_epoch_end(4, {"loss": 1.0})
    kernel = np.array(model.layers[0].kernel)
    kernel[1, 0] = -np.inf
    model.layers[0].kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"end of epoch 5: `.*dense/kernel`.*-inf"):
        guard.on_epoch_end(4, {"loss": 1.0})
