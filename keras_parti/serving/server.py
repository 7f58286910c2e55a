"""An embedded server that speaks TensorFlow Serving's protocol.

It needs no installation beyond Python packages, and answers with the codes and the
messages of `tensorflow_model_server` 2.21, so that a client written against either
works with both: gRPC on one port and, if wanted, REST on another.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Self

import grpc

from keras_parti.serving.grpc_services import add_services
from keras_parti.serving.http_server import HttpServer
from keras_parti.serving.models import Models, one_model, read_config
from keras_parti.serving.monitoring import Monitor
from keras_parti.serving.protocol import Protocol
from keras_parti.serving.rest import Rest
from keras_parti.serving.scheduler import Scheduler

logger = logging.getLogger(__name__)

POLLING = 1.0  # seconds between two looks for new versions, as the real server's
MAX_REST_BYTES = 16 << 20  # JSON takes many times its size in memory
ASIDE = 8  # threads beyond those of waiting requests: status, metadata, health


class Server:
    """Serves exported models over gRPC, and over REST.

    The ports are taken first, so that one in use is known before a long load; requests
    are answered once the models are loaded and their warm-up records are replayed. A
    new version in a model's folder is loaded and takes over without a failed request.

    Args:
        model_dir: Path of a folder with version folders, as `export` writes it.
        name: str. The model's name in requests; the folder's name by default.
        port: int. 0 takes a free one, which `port` then tells.
        host: str. The address to listen on. The default is this machine's loopback:
            anyone who reaches the port may use the model.
        rest_port: int. That of REST, as `port`; None is no REST.
        page: bool. Whether REST's port shows a page to type prompts into.
        rest_timeout: float. Seconds that a request over REST may wait for its turn
            before it is refused (504). One over gRPC brings a deadline of its own.
        config: Path of a models.config, a `ModelServerConfig` in text format, that
            names models and folders instead of `model_dir` and `name`.
        threads: int. Requests worked on at once; by default four for each core, as
            with the real server.
        queue: int. Requests that may wait beyond these. Others are refused with
            `RESOURCE_EXHAUSTED`, which clients answer by trying again later.
        batch_rows: int. Concurrent requests of one signature are joined into as many
            runs as there are cores, of up to so many rows; 0 joins none.
        max_message_bytes: int. The largest request; a larger one is refused with
            `RESOURCE_EXHAUSTED`. REST takes 16 MiB at most.
        warm_up: bool. Whether recorded requests are replayed before readiness; the
            log says at INFO which signature is at work.

    Raises:
        FileNotFoundError, ValueError: By `start`, if there is no whole model.
        OSError: By `start`, if a port cannot be had.
        ValueError: A port is no port's number, or there is nothing to serve.

    Example:
        >>> from keras_parti.serving import Client
        >>> with Server("saved_models/emoji", port=0) as server:  # a free port
        ...     with Client(server.address, model="emoji") as client:
        ...         client.status()
        {1: 'AVAILABLE'}
    """

    def __init__(
        self,
        model_dir: str | os.PathLike | None = None,
        name: str | None = None,
        port: int = 8500,
        host: str = "127.0.0.1",
        rest_port: int | None = None,
        page: bool = False,
        rest_timeout: float = 120.0,
        config: str | os.PathLike | None = None,
        threads: int | None = None,
        queue: int = 64,
        batch_rows: int = 16,
        max_message_bytes: int = 64 << 20,
        warm_up: bool = True,
    ) -> None:
        for number in (port, rest_port or 0):
            if not 0 <= number <= 65535:
                raise ValueError(f"port must lie in [0, 65535]. Received: {number}")
        if (model_dir is None) == (config is None):
            raise ValueError(
                "Give either `model_dir` or `config`. "
                f"Received: model_dir={model_dir}, config={config}"
            )
        self.host = host
        self.port = port
        self.rest_port = rest_port
        self.name = name
        if model_dir is not None:
            self.name = name or Path(model_dir).resolve().name
        self.models = Models(warm_up)
        self._model_dir = model_dir
        self._config = config
        self._page = page
        self._rest_timeout = rest_timeout
        self._threads = threads or 4 * (os.cpu_count() or 1)
        self._queue = queue
        self._batch_rows = batch_rows
        self._max_message_bytes = max_message_bytes
        self._running: tuple | None = None
        self._stopped = threading.Event()

    @property
    def address(self):
        """Str. `host:port`, as a client on the same machine gives it."""
        return f"{self.host}:{self.port}"

    @property
    def rest_address(self):
        """Str. The same of REST, or None."""
        return None if self.rest_port is None else f"{self.host}:{self.rest_port}"

    @property
    def version(self):
        """Int. The newest served version of the first model, None before `start`."""
        first = next(iter(self.models), None)
        return max(first.available, default=None) if first else None

    def start(self) -> Self:
        """Loads the models and answers from then on.

        Returns:
            This server.
        """
        if self._config:
            configs = read_config(Path(self._config))
            self.name = configs.config[0].name
        else:
            configs = one_model(self.name, self._model_dir)
        with contextlib.ExitStack() as undo:
            # Those who wait in the queue hold a thread, so that a request costs
            # little until it runs and others still get their status.
            waiting = self._threads + self._queue + ASIDE
            server = grpc.server(
                futures.ThreadPoolExecutor(waiting, "keras-parti-grpc"),
                options=[
                    # Two servers on one port would share its requests at random.
                    ("grpc.so_reuseport", 0),
                    ("grpc.max_receive_message_length", self._max_message_bytes),
                    ("grpc.max_send_message_length", -1),
                ],
                # Watching health is a call that lasts and needs no thread.
                maximum_concurrent_rpcs=2 * waiting,
            )
            undo.callback(server.stop, None)
            with listening(self.host, self.port):
                pass  # gRPC says no more than that it failed, so this is asked first
            self.port = server.add_insecure_port(self.address)
            scheduler = Scheduler(self._threads, self._queue, self._batch_rows)
            undo.callback(scheduler.close)
            protocol = Protocol(self.models, scheduler, Monitor())
            rest = None
            if self.rest_port is not None:
                rest = listening(self.host, self.rest_port)
                undo.callback(rest.close)
                self.rest_port = rest.getsockname()[1]
            self.models.configure(configs)
            health = add_services(server, protocol)
            self._stopped.clear()
            http = None
            if rest:
                http = HttpServer(
                    Rest(protocol, self._page, self._rest_timeout),
                    rest,
                    waiting,
                    min(self._max_message_bytes, MAX_REST_BYTES),
                )
                http.start()
            server.start()
            poller = threading.Thread(
                target=self._poll, name="keras-parti-poll", daemon=True
            )
            poller.start()
            undo.pop_all()
        self._running = server, health, http, scheduler, poller
        logger.info("Serving %s on %s", self.name, self.address)
        return self

    def stop(self, grace: float = 30.0) -> None:
        """Takes no more requests, and lets those at work finish.

        Args:
            grace: float. Seconds after which requests still at work are cut off.
        """
        self._stopped.set()
        if self._running is None:
            return
        (server, health, http, scheduler, poller), self._running = self._running, None
        end = time.monotonic() + grace
        health.enter_graceful_shutdown()  # NOT_SERVING, for those who watch
        # First the doors, then what is behind them: whoever came in is answered.
        ended = server.stop(grace)
        if http:
            http.drain(grace)
        ended.wait(max(end - time.monotonic(), 0))
        scheduler.close()
        if http:
            http.stop(0.5)
        ended.wait()
        self.models.abandon()
        poller.join(max(end - time.monotonic(), 0.5))

    def wait(self) -> None:
        """Blocks until Ctrl-C, SIGTERM or a call of `stop`, then stops gracefully."""
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            if in_main:
                # As Ctrl-C. A handler that set the event could meet the main thread
                # inside `Event.wait`, holding the lock that setting needs.
                signal.signal(signal.SIGTERM, signal.default_int_handler)
            # In short waits, because a signal that another thread receives is only
            # seen when the main thread wakes.
            while not self._stopped.wait(0.5):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, before)
            self.stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _poll(self):
        while not self._stopped.wait(POLLING):
            self.models.sync()


def listening(host, port):
    """A bound socket.

    Raises:
        OSError: The port cannot be had; words that say why.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "it is in use. Stop what listens there, or give another port"
        raise OSError(f"Cannot listen on port {port} of {host}: {reason}.") from error
    return bound
