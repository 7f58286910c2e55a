"""What a training notes of signals, and how it ends by them."""

import signal

import pytest

from keras_parti.training.interruption import leave, stop_noted


def test_the_first_interrupt_is_noted_and_the_second_ends_at_once(capfd):
    with stop_noted() as stopped:
        assert stopped() is None
        signal.raise_signal(signal.SIGINT)
        assert stopped() == signal.SIGINT
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_whoever_ignores_interrupts_goes_on_to():
    """As what a shell has put in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_noted() as stopped:
            signal.raise_signal(signal.SIGINT)
            assert stopped() is None
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "name", "error", "status"),
    [
        (signal.SIGINT, "Ctrl-C", KeyboardInterrupt, None),
        (signal.SIGTERM, "SIGTERM", SystemExit, 143),
    ],
)
def test_each_signal_has_its_own_end_and_the_same_words(
    number, name, error, status, capsys
):
    with pytest.raises(error) as caught:
        leave(number, "epoch 1 is in x")
    said = f"Stopped by {name}: epoch 1 is in x. The same command goes on from there."
    assert said in (str(caught.value), capsys.readouterr().err.strip())
    assert getattr(caught.value, "code", None) == status
