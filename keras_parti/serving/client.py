"""Clients of TensorFlow Serving for exported text-to-image models."""

import asyncio
import time

import grpc

from keras_parti.serving.conversation import Conversation

CHANNEL = [
    # gRPC takes 4 MB at most by default, less than a grid of large pictures.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # By default a channel whose server went away looks for it again after up to two
    # minutes, and until then fails without looking, our repetitions too.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Client(Conversation):
    """Asks a server for pictures, over gRPC.

    Any server of TensorFlow Serving's protocol will do: `keras-parti serve`, or
    `tensorflow_model_server`. Safe to use from many threads.

    Args:
        address: str. `host:port`.
        model: str. The model's name there.
        version: int. Which version to ask; by default the newest.
        timeout: float. Seconds that one request may take, with its repetitions.
        retries: int. How often a request is repeated while the server cannot be
            reached (`UNAVAILABLE`), after 0.1, 0.2, 0.4, ... seconds, 5 at most. The
            default bears a gap of three seconds; a restart takes twelve retries.
        best: pair of int. `num_samples` and `keep` that the model was exported with;
            the protocol does not tell them. Empty: the client chooses itself.
        tls: bool. Whether the server is asked over TLS; naming a file means it, too.
        ca_file: path of PEM certificates that may sign the server's; by default those
            that gRPC brings.
        cert_file: path of this client's PEM certificate, for servers that want one.
        key_file: path of its key.

    Raises:
        ValueError: One of `cert_file` and `key_file` is given without the other.
        OSError: A file cannot be read.

    Example:
        >>> with Client("localhost:8500", model="emoji") as client:
        ...     drawn = client.generate(["a red apple"], num_samples=2, keep=1)
        >>> drawn["images"].shape[:2]  # a prompt, a picture
        (1, 1)
    """

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _connect(self, credentials):
        if credentials is None:
            return grpc.insecure_channel(self.address, CHANNEL)
        return grpc.secure_channel(self.address, credentials, CHANNEL)

    async def _send(self, method, request, timeout):
        return method(request, timeout=timeout)

    async def _pause(self, seconds):
        time.sleep(seconds)

    def _run(self, coroutine):
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise RuntimeError("A blocking client's method was suspended.")


class AsyncClient(Conversation):
    """The same for programs of asyncio: each method is to be awaited.

    Make it inside a coroutine, because its connection belongs to the running loop.

    Args:
        *args: as `Client`.
        **kwargs: as `Client`.

    Example:
        >>> async def draw(*prompts):
        ...     async with AsyncClient("localhost:8500", model="emoji") as client:
        ...         tasks = [client.generate([p], num_samples=1) for p in prompts]
        ...         return await asyncio.gather(*tasks)
        >>> fox, apple = asyncio.run(draw("a fox", "an apple"))
        >>> fox["images"].shape[:2]
        (1, 1)
    """

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    def _connect(self, credentials):
        if credentials is None:
            return grpc.aio.insecure_channel(self.address, CHANNEL)
        return grpc.aio.secure_channel(self.address, credentials, CHANNEL)

    async def _send(self, method, request, timeout):
        return await method(request, timeout=timeout)

    async def _pause(self, seconds):
        await asyncio.sleep(seconds)

    def _run(self, coroutine):
        return coroutine
