"""How a server refuses: the real one's codes, over gRPC and over HTTP."""

import logging

import grpc
import tensorflow as tf

from keras_parti.serving.failures import plain

logger = logging.getLogger(__name__)

MAX_ERROR_BYTES = 1024
CODES = {code.value[0]: code for code in grpc.StatusCode}

# Of HTTP, by the number of gRPC's code; any other is 500.
HTTP = {
    1: 499,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    14: 503,
}


def invalid(message):
    """An `INVALID_ARGUMENT` with this message."""
    return tf.errors.InvalidArgumentError(None, None, message)


def not_found(message):
    """A `NOT_FOUND` with this message."""
    return tf.errors.NotFoundError(None, None, message)


def precondition(message):
    """A `FAILED_PRECONDITION` with this message."""
    return tf.errors.FailedPreconditionError(None, None, message)


def exhausted():
    """What the real server says when all its threads are at work."""
    return tf.errors.ResourceExhaustedError(None, None, "Server Threadpool Exhausted")


def stopping():
    """An `UNAVAILABLE` for what a server that stops does not answer any more."""
    return tf.errors.UnavailableError(None, None, "The server stops.")


def cancelled():
    """A `CANCELLED` for what nobody waits for."""
    return tf.errors.CancelledError(None, None, "The request was given up.")


def late(seconds):
    """A `DEADLINE_EXCEEDED` for what waited so long for its turn."""
    words = f"The request waited {seconds:g} s for its turn: the server is busy."
    return tf.errors.DeadlineExceededError(None, None, words)


def describe(error):
    """The number of gRPC's code for an error, and the words to send.

    The real server leaves the words of a graph around those of a failed check.
    """
    if isinstance(error, tf.errors.OpError):
        return error.error_code, cut(plain(error.message))
    logger.error("A request failed.", exc_info=error)
    return tf.errors.INTERNAL, cut(f"{type(error).__name__}: {error}")


def cut(message):
    """The message in the length that the real server sends at most."""
    content = message.encode(errors="replace")
    if len(content) <= MAX_ERROR_BYTES:
        return message
    return content[:MAX_ERROR_BYTES].decode(errors="ignore") + "...TRUNCATED"
