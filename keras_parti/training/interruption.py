"""What keeps a run whole from outside: one process a folder, and an end by a signal."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM  # the status that shells give it
WAIT = "\nSaving, then stopping. Ctrl-C again stops at once.\n"


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder meanwhile.

    The lock is the system's, on `folder/.lock`: a killed process leaves none behind.

    Args:
        folder: path of a run that exists.

    Raises:
        BlockingIOError: another process trains in it.
        OSError: the folder cannot be written to.
    """
    import fcntl  # not on every system, and only training needs it

    with open(folder / ".lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"Another process trains in {folder}. Wait for its end, or choose "
                "another workdir."
            ) from None
        yield


@contextlib.contextmanager
def stop_noted() -> Iterator[Callable[[], signal.Signals | None]]:
    """Has SIGTERM and the first Ctrl-C noted instead of ending the process.

    The second Ctrl-C ends it at once. Of several workers none waits for its step's end:
    the others may be gone, and with them what the step waits for. Threads other than
    the first cannot note signals.

    Yields:
        A function that tells which signal has come, or None.
    """
    came: list[signal.Signals] = []
    first = threading.current_thread() is threading.main_thread()
    if not first or "TF_CONFIG" in os.environ:
        yield lambda: None
        return

    def note(number, _):
        if number == signal.SIGINT:
            if number in came:
                raise KeyboardInterrupt
            # Not by `sys.stderr`, in the midst of whose writing a signal may come.
            os.write(2, WAIT.encode())
        came.append(signal.Signals(number))

    noted = [signal.SIGTERM]
    # A shell starts with SIGINT ignored what it puts in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        noted.append(signal.SIGINT)
    before = [(number, signal.signal(number, note)) for number in noted]
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def leave(number: signal.Signals, saved: str) -> NoReturn:
    """Ends a training that a signal has stopped, and says what is saved.

    Args:
        number: the signal that has come.
        saved: str. What is saved, and where.

    Raises:
        KeyboardInterrupt: after Ctrl-C; its words say it.
        SystemExit: of status 143, after SIGTERM, with a line on standard error.
    """
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    words = f"Stopped by {name}: {saved}. The same command goes on from there."
    if number == signal.SIGINT:
        raise KeyboardInterrupt(words)
    sys.stderr.write(words + "\n")
    raise SystemExit(TERMINATED)
