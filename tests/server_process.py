"""A server in a process of its own, to be killed, and asked over both ports."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from keras_parti.serving.server import Server
ports = {"port": int(sys.argv[2]), "rest_port": int(sys.argv[3])}
with Server(sys.argv[1], name="toy", warm_up=False, **ports) as server:
    print(server.port, server.rest_port, flush=True)
    server.wait()
print("stopped", flush=True)
"""


class ServerProcess:
    """Serves a model's folder as `toy`; ready when made.

    Args:
        model: path.
        log: path of a file that takes what it says on standard error.
        port: int. 0 takes a free one.
        rest_port: int. The same of REST.
    """

    def __init__(self, model, log, port=0, rest_port=0):
        self.log = Path(log)
        with self.log.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, model, str(port), str(rest_port)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=Path(__file__).parents[1],
            )
        ports = self.process.stdout.readline().split()
        assert len(ports) == 2, self.log.read_text()
        self.port, self.rest_port = map(int, ports)
        self.address = f"127.0.0.1:{self.port}"
        self.rest_address = f"127.0.0.1:{self.rest_port}"

    def kill(self):
        """Ends it at once, as a lack of memory or power would."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """Ends it as an operator would; holds it to a clean end."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=60)[0]
        assert said == "stopped\n"
        assert self.process.returncode == 0
        assert "Traceback" not in self.log.read_text()

    def connect(self, port=None):
        """A plain connection to a port, by default that of gRPC."""
        return socket.create_connection(("127.0.0.1", port or self.port), timeout=60)

    def rest(self, method, path, document=None):
        """The status and the document that REST answers with."""
        body = None if document is None else json.dumps(document)
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
