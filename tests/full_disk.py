"""A disk that is full, as a process sees it."""

import contextlib
import resource


@contextlib.contextmanager
def files_of_at_most(size):
    """No file of this process grows beyond a size: a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
