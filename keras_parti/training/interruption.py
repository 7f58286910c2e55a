"""What keeps a run whole from outside: one process a folder, and an end by SIGTERM."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM  # the status that shells give it


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
def sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Has SIGTERM noted instead of ending the process.

    Of several workers none waits for its step's end: the others may be gone, and with
    them what the step waits for. Threads other than the first cannot note signals.

    Yields:
        A function that tells whether SIGTERM has come.
    """
    came = threading.Event()
    first = threading.current_thread() is threading.main_thread()
    if not first or "TF_CONFIG" in os.environ:
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(saved: str) -> NoReturn:
    """Ends the process with a line on standard error, after SIGTERM.

    Args:
        saved: str. What is saved, and where.

    Raises:
        SystemExit: of status 143.
    """
    sys.stderr.write(
        f"Stopped by SIGTERM: {saved}. The same command goes on from there.\n"
    )
    raise SystemExit(TERMINATED)
