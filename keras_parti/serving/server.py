"""An embedded gRPC server that speaks TensorFlow Serving's protocol.

It needs no installation beyond Python packages, and answers with the codes and the
messages of `tensorflow_model_server` 2.21, so that a client written against either
works with both. It serves one model: the newest whole version in a folder.
"""

import errno
import functools
import logging
import os
import signal
import socket
import threading
from concurrent import futures
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_parti.serving.servable import DEFAULT_SIGNATURE, Servable, invalid

logger = logging.getLogger(__name__)

MAX_ERROR_BYTES = 1024
CODES = {code.value[0]: code for code in grpc.StatusCode}


def answering(method):
    """Turns the errors of a method into gRPC's."""

    @functools.wraps(method)
    def handle(self, request, context):
        try:
            return method(self, request)
        except tf.errors.OpError as error:
            code, message = CODES[error.error_code], error.message
        except Exception as error:
            logger.exception("%s failed", method.__name__)
            code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        context.abort(code, cut(message))

    return handle


def cut(message):
    """The message in the length that the real server sends at most."""
    content = message.encode(errors="replace")
    if len(content) <= MAX_ERROR_BYTES:
        return message
    return content[:MAX_ERROR_BYTES].decode(errors="ignore") + "...TRUNCATED"


class Models:
    """The loaded versions of one model, found by a request's `ModelSpec`.

    Args:
        name: str. The name that requests ask for.
        versions: dict of int to `Servable`.
    """

    def __init__(self, name, versions):
        self.name = name
        self.versions = versions

    def find(self, request):
        """The version that a request means; without one, the newest."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")
        if choice == "version":
            version = spec.version.value
            wanted = f"Specific({spec.name}, {version})"
        else:
            version = max(self.versions, default=None)
            wanted = f"Latest({spec.name})"
        if spec.name != self.name or version not in self.versions:
            message = f"Servable not found for request: {wanted}"
            raise tf.errors.NotFoundError(None, None, message)
        return self.versions[version]


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Runs signatures and describes them; has no classifiers and no regressors."""

    def __init__(self, models):
        self.models = models

    @answering
    def Predict(self, request):
        servable = self.models.find(request)
        signature_name, outputs = servable.predict(request)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = signature_name
        for alias, proto in outputs.items():
            response.outputs[alias].CopyFrom(proto)
        return response

    @answering
    def GetModelMetadata(self, request):
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        servable = self.models.find(request)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response

    @answering
    def Classify(self, request):
        signature = self._signature(request)
        self._refuse(signature, "classification", (1, 2), "one or two output Tensors")

    @answering
    def Regress(self, request):
        signature = self._signature(request)
        self._refuse(signature, "regression", (1,), "one output Tensor")

    @answering
    def MultiInference(self, request):
        if not request.tasks:
            raise invalid("ModelSpec has no name specified.")
        self.models.find(request.tasks[0])
        raise tf.errors.UnimplementedError(
            None,
            None,
            f"Unsupported signature method_name: {request.tasks[0].method_name}",
        )

    def _signature(self, request):
        signatures = self.models.find(request).signatures
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in signatures:
            raise invalid(f"No signature was found with the name: {name}")
        return signatures[name]

    @staticmethod
    def _refuse(signature, kind, num_outputs, wanted):
        """What the real server says of a signature that is none of this kind."""
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if len(signature.outputs) not in num_outputs:
            raise invalid(f"Expected {wanted}, found {len(signature.outputs)}")
        raise tf.errors.FailedPreconditionError(
            None, None, f"No {kind} inputs found in SignatureDef: {signature}"
        )


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Says which versions are there; does not change what is served."""

    def __init__(self, models):
        self.models = models

    @answering
    def GetModelStatus(self, request):
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        versions = self.models.versions if spec.name == self.models.name else {}
        if spec.HasField("version"):
            wanted = {spec.version.value} & set(versions)
            missing = (
                f"Could not find version {spec.version.value} of model {spec.name}"
            )
        else:
            wanted = set(versions)
            missing = f"Could not find any versions of model {spec.name}"
        if not wanted:
            raise tf.errors.NotFoundError(None, None, missing)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(wanted, reverse=True):
            status = response.model_version_status.add(version=version)
            status.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            status.status.SetInParent()
        return response

    @answering
    def HandleReloadConfigRequest(self, request):
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        raise tf.errors.UnimplementedError(
            None,
            None,
            "The embedded server serves the one folder it was started with. "
            "Start it with another, or use tensorflow_model_server.",
        )


def load_newest(model_dir):
    """Loads the newest version of a model that is whole.

    Args:
        model_dir: Path of a folder with a sub-folder for each version, `1`, `2`, ...

    Returns:
        A `Servable`.

    Raises:
        FileNotFoundError: No such folder, or it has no version folders.
        ValueError: No version is whole. A broken one beside an older whole one is
            passed over with a warning.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"No model folder {folder}. `keras-parti export` writes one."
        )
    # The real server, too, takes a name made of digits as a version, and no other.
    versions = [p for p in folder.iterdir() if p.is_dir() and p.name.isdecimal()]
    if not versions:
        hint = "holds no version folders (1, 2, ...)"
        if (folder / "saved_model.pb").exists():
            hint = f"is a SavedModel, not a folder of versions; give {folder.parent}"
        raise FileNotFoundError(f"Model folder {folder} {hint}.")
    reasons = []
    for version in sorted(versions, key=lambda p: int(p.name), reverse=True):
        try:
            servable = Servable(version)
        except ValueError as error:
            reasons.append(f"version {version.name} is not whole: {error}")
            continue
        for reason in reasons:
            logger.warning("%s: %s", folder, reason)
        return servable
    raise ValueError(f"Model folder {folder}: {'; '.join(reasons)}.")


class Server:
    """Serves the newest version of an exported model over gRPC.

    The port is taken first, so that one in use is known before a long load; requests
    are answered once the model is loaded and its warm-up records are replayed.

    Args:
        model_dir: Path of a folder with version folders, as `export` writes it.
        name: str. The model's name in requests; the folder's name by default.
        port: int. 0 takes a free one, which `port` then tells.
        host: str. The address to listen on. The default is this machine's loopback:
            anyone who reaches the port may use the model.
        threads: int. Requests worked on at once; by default four for each core, as
            with the real server.
        queue: int. Requests that may wait beyond these. Others are refused with
            `RESOURCE_EXHAUSTED`, which clients answer by trying again later.
        max_message_bytes: int. The largest request; a larger one is refused with
            `RESOURCE_EXHAUSTED`.

    Raises:
        FileNotFoundError, ValueError: By `start`, if there is no whole model.
        OSError: By `start`, if the port cannot be had.
        ValueError: The port is no port's number.

    Example:
        >>> with Server("saved_models/emoji") as server:  # doctest: +SKIP
        ...     server.wait()
    """

    def __init__(
        self,
        model_dir,
        name=None,
        port=8500,
        host="127.0.0.1",
        threads=None,
        queue=64,
        max_message_bytes=64 << 20,
    ):
        if not 0 <= port <= 65535:
            raise ValueError(f"port must lie in [0, 65535]. Received: {port}")
        self.model_dir = Path(model_dir)
        self.name = name or self.model_dir.resolve().name
        self.host = host
        self.port = port
        self._threads = threads or 4 * (os.cpu_count() or 1)
        self._queue = queue
        self._options = [
            # Two servers on one port would share its requests at random.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
        ]
        self._grpc = None
        self._models = Models(self.name, {})
        self._stopped = threading.Event()

    @property
    def address(self):
        """Str. `host:port`, as a client on the same machine gives it."""
        return f"{self.host}:{self.port}"

    @property
    def version(self):
        """Int. The version that is served, None before `start`."""
        return max(self._models.versions, default=None)

    def start(self):
        """Loads the model and answers from then on.

        Returns:
            This server.
        """
        pool = futures.ThreadPoolExecutor(self._threads, "keras-parti-serve")
        server = grpc.server(
            pool,
            options=self._options,
            maximum_concurrent_rpcs=self._threads + self._queue,
        )
        try:
            self.port = self._bind(server)
            servable = load_newest(self.model_dir)
        except Exception:
            server.stop(None)
            raise
        self._models.versions = {servable.version: servable}
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self._models), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self._models), server
        )
        server.start()
        self._grpc = server
        self._stopped.clear()
        logger.info(
            "Serving %s version %d on %s", self.name, servable.version, self.address
        )
        return self

    def stop(self, grace=10.0):
        """Takes no more requests, and lets those at work finish.

        Args:
            grace: float. Seconds after which requests still at work are cut off.
        """
        self._stopped.set()
        if self._grpc is None:
            return
        server, self._grpc = self._grpc, None
        server.stop(grace).wait()
        for servable in self._models.versions.values():
            servable.close()
        self._models.versions = {}

    def wait(self):
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

    def _bind(self, server):
        # gRPC says no more than that it failed, so the system is asked first.
        try:
            for family, *_, address in socket.getaddrinfo(
                self.host.strip("[]"), self.port, type=socket.SOCK_STREAM
            ):
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
            return server.add_insecure_port(self.address)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                reason = "it is in use. Stop what listens there, or give another port"
            raise OSError(
                f"Cannot listen on port {self.port} of {self.host}: {reason}."
            ) from error
