"""Files that are whole or not there, whatever ends the process that writes them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_room(path: str | os.PathLike, size: int) -> None:
    """Finds out whether a file would fit, for those who end badly where one does not.

    HDF5 ends the process when the disk fills under it.

    Args:
        path: str or path of a file, which is emptied.
        size: int. Bytes to come.

    Raises:
        OSError: they do not fit.
    """
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(0)


def check_writable(path: str | os.PathLike) -> None:
    """Finds out whether a file can be written, before hours go into its content.

    Args:
        path: str or path of the file. The folders above it are made.

    Raises:
        OSError: its folder cannot be made, or cannot be written to.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The system may say yes to one who then cannot: permissions are not all.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"Cannot write {path}: {folder}: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, shared: bool = False) -> Iterator[Path]:
    """Gives another name to write to, which becomes `path` once all is on the disk.

    A killed process or a full disk leaves what was there before. A kill leaves the
    unfinished file under a name that the next attempt takes again.

    Args:
        path: str or path of the file, in a folder that exists.
        shared: bool. Whether several processes may write it at once; each then has a
            name of its own.

    Yields:
        `pathlib.Path`, of the same ending as `path`.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path = Path(path)
    mark = f"{os.getpid()}-" if shared else ""
    part = path.with_name(f".part-{mark}{path.name}")
    try:
        yield part
        # The name must not survive a power cut that the bytes do not.
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
