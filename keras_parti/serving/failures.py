"""What a failed request means, and what its sender can do about it."""

import re

import grpc

# Statuses that the request itself caused; other failures are the server's.
MISTAKES = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
)

# How gRPC says in RESOURCE_EXHAUSTED that a message is too large. Other servers that
# send this status are busy: the real one ("Server Threadpool Exhausted"), and ours.
TOO_LARGE = "larger than max"

# What begins the words of a check in a graph, and what the names of its nodes.
CHECK, NODES = "assertion failed: [", "\n\t [["


def explain(failure, address, timeout):
    """Turns gRPC's error into Python's, with words that say what to do.

    Args:
        failure: `grpc.RpcError`.
        address: str. Where the server was looked for.
        timeout: float. Seconds that were waited for it.

    Returns:
        `ValueError` where the request was wrong; else `ConnectionError`,
        `TimeoutError` or another `OSError`.
    """
    code, words = failure.code(), failure.details() or "no details"
    if code == grpc.StatusCode.UNAVAILABLE:
        if "handshake" in words.lower() or "certificate" in words.lower():
            return ConnectionError(
                f"TLS with the server at {address} fails ({words}). Check that it "
                "takes TLS, that `ca_file` signed its certificate, and its host name."
            )
        return ConnectionError(
            f"No server answers at {address} ({words}). "
            "Start one with `keras-parti serve DIR`."
        )
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimeoutError(
            f"The server at {address} did not answer in {timeout:g} s. "
            "Ask for fewer pictures at once, or give a longer timeout."
        )
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        if TOO_LARGE in words:
            return ValueError(
                f"The server at {address} takes no message of this size: {words}. "
                "Send fewer or smaller pictures at once."
            )
        return ConnectionError(
            f"The server at {address} is too busy: {words}. "
            "Ask again later, or fewer requests at once."
        )
    if code == grpc.StatusCode.NOT_FOUND:
        words += (
            f". The server at {address} has no such model or version. Give the name "
            "that it serves, by --name of a command or `model` of a client: that of "
            "the folder served, or what `serve --name` said."
        )
    if code in MISTAKES:
        return ValueError(" ".join(plain(words).split(NODES)[0].split()))
    return OSError(f"The server at {address} failed: {code.name}: {words}")


def plain(words):
    """A failed check's words without what its graph puts around them; others as are.

    Of one value that many rows have, one is left: `Received: [31 31]` becomes
    `Received: 31`.
    """
    if not words.startswith(CHECK):
        return words
    words = words.removeprefix(CHECK).split(NODES)[0].replace("] [", " [", 1)
    return re.sub(r"Received: \[(\S+?)(?: \1)*(?:\.\.\.)?\]", r"Received: \1", words)
