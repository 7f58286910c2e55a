"""What all tests of bad input hold a server to."""

import time
from pathlib import Path

import grpc
from hypothesis import HealthCheck, settings
from serving_calls import OK

# What a bad request may be answered with. UNAVAILABLE, UNKNOWN, DEADLINE_EXCEEDED and
# INTERNAL would mean that the server broke and not the request.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
TIMEOUT = 60  # seconds, for what should take milliseconds


def cases(count):
    """So many examples, the same in each run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Sound:
    """Holds a server to its word: a code and a message for anything, and life after it.

    Args:
        call: as `serving_calls.caller` makes it.
        good: a pair of method and request that the server answers.
    """

    def __init__(self, call, good):
        self.call, self.good = call, good
        self.expected = self.answer()

    def answer(self):
        code, reply = self.call(*self.good, TIMEOUT)
        assert code == OK, reply
        return reply.SerializeToString(deterministic=True)

    def __call__(self, method, request):
        """Sends what may be wrong; returns the code and what came with it."""
        before, begin = resident_bytes(), time.monotonic()
        code, words = self.call(method, request, TIMEOUT)
        assert time.monotonic() - begin < TIMEOUT
        assert code == OK or code in REFUSALS, (code, words)
        assert code == OK or words, code
        assert code == OK or len(words) <= 1024 + len("...TRUNCATED")
        assert resident_bytes() - before < 1 << 30, "it took more than 1 GiB"
        assert self.answer() == self.expected
        return code, words

    def refuses(self, method, request, words=""):
        """Sends what is wrong."""
        code, message = self(method, request)
        assert code != OK
        assert words in message


def resident_bytes():
    """Memory of this process, in which the server runs as well."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096
