"""The embedded server as a program: ports, versions, limits and signals."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from serving_calls import GOOD, OK, caller, copy, loaded, ours, predict, status

from keras_parti.serving.server import Server

pytestmark = ours


def test_message_above_the_limit_is_refused(stand_ins):
    with Server(stand_ins / "parti", port=0, max_message_bytes=100_000) as server:
        call = caller(server.address)
        image = np.zeros((11, 64, 64, 3), np.float32)
        code, message = call("Predict", predict({"image": image}, signature="encode"))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "100000" in message
        assert call("Predict", predict(GOOD))[0] == OK


def test_unexpected_failure_is_an_answer_too(stand_ins, caplog):
    with Server(stand_ins / "parti", port=0) as server:
        call = caller(server.address)
        loaded(server).signatures["serving_default"] = None
        code, message = call("Predict", predict(GOOD))
        assert code == grpc.StatusCode.INTERNAL
        assert message.startswith("AttributeError")
        assert call("GetModelStatus", status())[0] == OK


def test_newest_version_by_number_is_served(stand_ins, tmp_path):
    model = copy(stand_ins, tmp_path, [9, 10, "11.tmp"])
    with Server(model, port=0) as server:
        assert server.version == 10
        assert caller(server.address)("GetModelStatus", status())[0] == OK


def test_missing_folders_are_named(stand_ins, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No model folder .*nowhere"):
        Server(tmp_path / "nowhere", port=0).start()
    with pytest.raises(FileNotFoundError, match="holds no version folders"):
        Server(tmp_path, port=0).start()
    with pytest.raises(FileNotFoundError, match=f"in it: .*{stand_ins / 'parti'}"):
        Server(stand_ins, port=0).start()
    with pytest.raises(FileNotFoundError, match=f"give {stand_ins / 'parti'}"):
        Server(stand_ins / "parti" / "2", port=0).start()


def test_port_in_use_is_said_at_once(stand_ins, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # Before the model is looked for: that may take long.
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1: it is in use"):
            Server(tmp_path / "nowhere", port=port).start()
    with Server(stand_ins / "parti", port=0) as first:
        assert first.port > 0
        with pytest.raises(OSError, match="it is in use"):
            Server(stand_ins / "parti", port=first.port).start()
        # Nor may another program share the port, if it asks for that.
        with socket.socket() as sharing:
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                sharing.bind(("127.0.0.1", first.port))
    with Server(stand_ins / "parti", port=first.port) as again:
        assert again.port == first.port
    with pytest.raises(ValueError, match=r"port must lie in \[0, 65535\].*: 70000"):
        Server(stand_ins / "parti", port=70000)


def listens(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_only_loopback_listens_unless_told(stand_ins):
    with Server(stand_ins / "parti", port=0) as server:
        assert listens("127.0.0.1", server.port)
        # All of 127/8 is loopback; a socket on any address would answer here too.
        assert not listens("127.0.0.2", server.port)
    with Server(stand_ins / "parti", host="0.0.0.0", port=0) as server:
        assert listens("127.0.0.2", server.port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_wait_ends_gracefully_on_a_signal(stand_ins, number):
    # A shell starts what it puts in the background with SIGINT ignored, and its
    # children inherit that.
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from keras_parti.serving.server import Server\n"
        "with Server(sys.argv[1], port=0) as server:\n"
        "    print(server.port, flush=True)\n"
        "    server.wait()\n"
        "print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(stand_ins / "parti")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    port = process.stdout.readline().strip()
    assert caller(f"127.0.0.1:{port}")("Predict", predict(GOOD))[0] == OK
    time.sleep(0.3)  # from ready to waiting
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == "stopped\n"
    assert process.returncode == 0
