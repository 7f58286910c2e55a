"""An HTTP server in threads of its own that outlasts bad clients.

Waitress reads requests and writes answers without threads, so that slow clients hold
none; what it hands over to one is a whole request of bounded size.
"""

import threading
import time

import waitress
from waitress import wasyncore

IDLE = 60  # seconds after which a silent connection is closed
CONNECTIONS = 512  # open at once; more wait to be accepted
MAX_HEADER_BYTES = 64 << 10


class HttpServer:
    """Serves a WSGI application until it is stopped.

    Args:
        application: WSGI application.
        listening: `socket.socket`, bound; closed with the server.
        threads: int. Requests worked on at once.
        max_body_bytes: int. Of a larger request, none is read; it is refused (413).
    """

    def __init__(self, application, listening, threads, max_body_bytes):
        self._connections = {}
        self._server = waitress.create_server(
            application,
            map=self._connections,
            sockets=[listening],
            threads=threads,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE,
            cleanup_interval=5,
            max_request_body_size=max_body_bytes,
            max_request_header_size=MAX_HEADER_BYTES,
            # Reads on while a request is at work, and so sees its client leave.
            channel_request_lookahead=1,
            asyncore_use_poll=True,
            log_socket_errors=False,
            ident=None,
        )
        self._stopped = False
        self._thread = threading.Thread(
            target=self._loop, name="keras-parti-http", daemon=True
        )

    @property
    def at_work(self):
        """Int. Connections with a request, or with the rest of an answer."""
        return sum(map(_at_work, list(self._server.active_channels.values())))

    def start(self):
        """Answers from now on."""
        self._thread.start()

    def drain(self, grace):
        """Accepts no more, and lets what is at work be answered.

        Connections are closed as they fall silent, or one that asks on and on would
        keep the server from its end.

        Args:
            grace: float. Seconds.
        """
        end = time.monotonic() + grace
        self._server.accepting = False
        while self.at_work and time.monotonic() < end:
            for channel in list(self._server.active_channels.values()):
                with channel.requests_lock:
                    channel.will_close |= not _at_work(channel)
            self._server.pull_trigger()
            time.sleep(0.02)

    def stop(self, grace):
        """Drains, and closes.

        Args:
            grace: float. Seconds.
        """
        if self._stopped:
            return
        self.drain(grace)
        self._stopped = True
        self._server.pull_trigger()
        self._thread.join()
        self._server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._connections)

    def _loop(self):
        while not self._stopped:
            wasyncore.loop(1, use_poll=True, map=self._connections, count=1)


def _at_work(channel):
    """Whether a connection has a request or the rest of an answer."""
    return bool(channel.requests or channel.total_outbufs_len)
