"""Waiting for what another thread or process does."""

import time


def wait_for(condition, seconds=120):
    """Returns once a function of nothing is true; fails where it does not become so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.005)
