"""One request of TensorFlow Serving and its answer, whichever way it is waited for."""

import functools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from keras_parti.serving.failures import explain
from keras_parti.serving.rows import chunks, column

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts

# What a model without these signatures lacks.
PARTS = {"upscale": "an upsampler", "score": "a CoCa", "generate_class": "a VIM"}


def offered(coroutine_method):
    """Turns a coroutine method into what the class offers: run at once, or awaited."""

    @functools.wraps(coroutine_method)
    def method(self, *args, **kwargs):
        return self._run(coroutine_method(self, *args, **kwargs))

    return method


class Exchange:
    """What any model is asked, as coroutines over three things that both clients bring.

    These are `_send(method, request, timeout)`, which asks once; `_pause(seconds)`;
    and `_run(coroutine)`, which `Client` finishes at once, since nothing it awaits
    ever suspends, and `AsyncClient` hands to its caller to await. The arguments are
    those of `Client`.
    """

    _connect: Callable[..., Any]

    def __init__(
        self,
        address: str = "localhost:8500",
        model: str = "emoji",
        version: int | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        best: tuple[int, int] | tuple[()] = (16, 4),
        tls: bool = False,
        ca_file: str | os.PathLike | None = None,
        cert_file: str | os.PathLike | None = None,
        key_file: str | os.PathLike | None = None,
    ) -> None:
        # Deferred, because the stubs import TensorFlow, which takes seconds.
        from tensorflow_serving.apis import (
            model_service_pb2_grpc,
            prediction_service_pb2_grpc,
        )

        self.address = address
        self.model = model
        self.version = version
        self.timeout = timeout
        self.retries = retries
        self.best = tuple(best)
        self._channel = self._connect(_credentials(tls, ca_file, cert_file, key_file))
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    @offered
    async def status(self) -> dict[int, str]:
        """Asks which versions of the model are there.

        Returns:
            dict of int to str, such as `{1: "AVAILABLE"}`. What keeps a version from
            being served follows its state: `"LOADING: it has no saved_model.pb"`.

        Raises:
            ValueError, OSError: As `Client.generate`.
        """
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model
        reply = await self._ask(self._models.GetModelStatus, request)
        name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            version.version: ": ".join(
                filter(None, [name(version.state), version.status.error_message])
            )
            for version in reply.model_version_status
        }

    @offered
    async def signatures(self) -> list[str]:
        """Asks what the model can do.

        Returns:
            list of str, sorted: the names that `predict` takes.

        Raises:
            ValueError, OSError: As `Client.generate`.
        """
        return await self._signatures()

    @offered
    async def predict(
        self, signature: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Runs any signature.

        Args:
            signature: str. Its name.
            inputs: dict of name to array; strings as object arrays of bytes.

        Returns:
            dict of name to array.

        Raises:
            ValueError, OSError: As `Client.generate`.
        """
        return await self._predict(signature, inputs)

    async def _predict(self, signature, inputs):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._name(request)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            reply = await self._ask(self._prediction.Predict, request)
        except ValueError as error:
            if not str(error).startswith("Serving signature key"):
                raise
            names = ", ".join(await self._signatures())
            words = f"The model {self.model} has no signature {signature}; it has "
            words += f"{names}."
            if signature in PARTS:
                words += f" It was exported without {PARTS[signature]}."
            raise ValueError(words) from None
        return {name: tf.make_ndarray(value) for name, value in reply.outputs.items()}

    async def _predict_rows(self, signature, rows):
        """Runs a signature of columns on rows, as many together as a request takes."""
        if not rows:
            raise ValueError("At least one must be given. Received none.")
        parts = []
        for chunk in chunks(rows):
            columns = {name: column([row[name] for row in chunk]) for name in rows[0]}
            parts.append(await self._predict(signature, columns))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    async def _signatures(self):
        from tensorflow_serving.apis import get_model_metadata_pb2 as pb2

        request = pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._name(request)
        reply = await self._ask(self._prediction.GetModelMetadata, request)
        signatures = pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        return sorted(n for n in signatures.signature_def if not n.startswith("__"))

    async def _ask(self, method, request):
        """One request, repeated while the server is away; its errors ours.

        Only UNAVAILABLE is repeated, and may be at any moment: the same request gives
        the same pictures. A server that is busy says RESOURCE_EXHAUSTED; clients that
        repeat at once what it just refused keep it busy.
        """
        end = time.monotonic() + self.timeout
        for attempt in range(self.retries + 1):
            try:
                left = max(end - time.monotonic(), 0.001)
                return await self._send(method, request, left)
            except grpc.RpcError as error:
                failure = error
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            # Shaken, so that clients that lost a server together return one by one.
            pause *= random.uniform(0.5, 1.0)
            last = attempt == self.retries or time.monotonic() + pause >= end
            if last or failure.code() != grpc.StatusCode.UNAVAILABLE:
                break
            await self._pause(pause)
        raise explain(failure, self.address, self.timeout)

    def _name(self, request):
        request.model_spec.name = self.model
        if self.version is not None:
            request.model_spec.version.value = self.version


def _credentials(tls, ca_file, cert_file, key_file):
    """What gRPC needs for TLS; None is a connection in the open."""
    if (cert_file is None) != (key_file is None):
        raise ValueError(
            "cert_file and key_file go together. "
            f"Received: cert_file={cert_file}, key_file={key_file}"
        )
    if not (tls or ca_file or cert_file):
        return None
    paths = (ca_file, key_file, cert_file)
    contents = [None if path is None else Path(path).read_bytes() for path in paths]
    return grpc.ssl_channel_credentials(*contents)
