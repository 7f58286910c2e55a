"""What a training notes of signals, how it ends by them, and what a command says."""

import signal

import pytest

import keras_parti.__main__
from keras_parti import cli
from keras_parti.cli import sizes
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


@pytest.mark.parametrize("words", ["", "Stopped by Ctrl-C: epoch 1 is in x."])
def test_interruption_is_one_line(words, monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt(words)

    monkeypatch.setattr(sizes, "presets", interrupted)
    assert cli.main(["presets"]) == 130
    assert capsys.readouterr() == ("", f"{words or 'Stopped.'}\n")


def test_an_interrupted_training_says_where_its_checkpoints_are(
    tmp_path, monkeypatch, capsys
):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_parti.cli.train.vocab", interrupted)
    words = ["train", "vocab", "--data", "x", "--workdir", str(tmp_path)]
    assert cli.main(words) == 130
    assert capsys.readouterr().err == "Stopped.\n"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "000001.npz").touch()
    assert cli.main(words) == 130
    said = f"Stopped. The same command goes on from what is in {tmp_path}/checkpoints."
    assert capsys.readouterr().err == said + "\n"


def test_interruption_is_one_line_from_the_start(monkeypatch, capsys):
    """While the modules of the command are imported."""

    def interrupted(name, *args, imported=__import__, **kwargs):
        if name == "keras_parti.cli":
            raise KeyboardInterrupt
        return imported(name, *args, **kwargs)

    monkeypatch.setattr("builtins.__import__", interrupted)
    assert keras_parti.__main__.main() == 130
    assert capsys.readouterr().err == "Stopped.\n"
