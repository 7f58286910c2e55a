"""What a client asks and what it makes of the answers, whichever way it waits."""

import functools
import random
import time
from pathlib import Path

import grpc
import numpy as np

from keras_parti.serving.failures import explain
from keras_parti.serving.pictures import files, read_picture
from keras_parti.serving.rows import (
    ROWS_PER_REQUEST,
    chunks,
    column,
    draw_columns,
    label_column,
    utf8,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts

# What a model without these signatures lacks.
PARTS = {"upscale": "an upsampler", "score": "a CoCa", "generate_class": "a VIM"}


def offered(coroutine_method):
    """Turns a coroutine method into what the class offers: run at once, or awaited."""

    @functools.wraps(coroutine_method)
    def method(self, *args, **kwargs):
        return self._run(coroutine_method(self, *args, **kwargs))

    return method


class Conversation:
    """The requests of both clients, as coroutines over three things they bring.

    These are `_send(method, request, timeout)`, which asks once; `_pause(seconds)`;
    and `_run(coroutine)`, which `Client` finishes at once, since nothing it awaits
    ever suspends, and `AsyncClient` hands to its caller to await. The arguments are
    those of `Client`.
    """

    def __init__(
        self,
        address="localhost:8500",
        model="emoji",
        version=None,
        timeout=120.0,
        retries=5,
        best=(16, 4),
        tls=False,
        ca_file=None,
        cert_file=None,
        key_file=None,
    ):
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
    async def generate(
        self,
        prompts,
        num_samples=1,
        keep=1,
        guidance_scale=None,
        temperature=None,
        top_k=None,
        top_p=None,
        seed=0,
    ):
        """Draws pictures of prompts; as `TextToImage.generate`, on the server.

        With the `best` of the client the server chooses (`generate_best`); with other
        numbers each sample is a row of `generate`, and the client chooses.

        Args:
            prompts: list of str. The empty prompt draws without condition.
            num_samples: int. Pictures drawn for each prompt, with the seeds `seed`,
                `seed + 1`, ...
            keep: int. How many of them come back, those of the best score first.
            guidance_scale: float in [0, 30]. 1 is no guidance. This and the next
                three are `sampling.DEFAULTS` where they are None.
            temperature: float in [0, 10]. 0 takes the likeliest id each time.
            top_k: int. Draws from the k likeliest ids; 0 from all.
            top_p: float in [0, 1]. Draws from the fewest ids of this probability.
            seed: int of 64 bits. The same seed gives the same pictures.

        Returns:
            A dict of arrays: `images` uint8 `(prompts, keep, height, width, 3)`,
            `score` float32 `(prompts, keep)`, `ids` int32 `(prompts, keep, length)`,
            `num_tokens` int32 and `truncated` bool `(prompts,)`.

        Raises:
            ValueError: The server refuses the request; its words.
            TypeError: `prompts` holds something else than text.
            OSError: The server is gone or busy (`ConnectionError`), too slow
                (`TimeoutError`), or fails.
        """
        # Deferred, because it imports Keras, and with it a backend.
        from keras_parti import sampling

        texts = utf8(prompts)
        sampling.check_counts(num_samples, keep)
        seeds = sampling.sample_seeds(seed, num_samples, len(texts))
        given = (guidance_scale, temperature, top_k, top_p)
        options = _chosen(given, sampling.DEFAULTS)
        if (num_samples, keep) == self.best:
            rows = await self._draw_best(texts, seed, keep, options)
        else:
            rows = await self._draw("prompt", texts, seeds, keep, options)
        return {
            "images": np.stack(
                [[read_picture(p) for p in r] for r in rows["image_bytes"]]
            ),
            "score": rows["score"],
            "ids": rows["ids"],
            "num_tokens": rows["prompt_tokens"],
            "truncated": rows["truncated"],
        }

    @offered
    async def generate_class(
        self,
        labels,
        num_samples=1,
        keep=1,
        guidance_scale=None,
        temperature=None,
        top_k=None,
        top_p=None,
        seed=0,
    ):
        """Draws pictures of classes; as `ClassToImage.generate`, on the server.

        Args:
            labels: list of int, as the model's card numbers its classes.
            num_samples: int. This and the others are those of `generate`; without
                `guidance_scale` there is no guidance.
            keep: int.
            guidance_scale: float in [0, 30].
            temperature: float in [0, 10].
            top_k: int.
            top_p: float in [0, 1].
            seed: int of 64 bits.

        Returns:
            A dict of arrays: `images` uint8 `(labels, keep, height, width, 3)`, `score`
            float32 `(labels, keep)` and `ids` int32 `(labels, keep, length)`.

        Raises:
            ValueError, OSError: As `generate`; also where the model draws no classes.
        """
        from keras_parti import sampling
        from keras_parti.models.class_to_image import DEFAULTS

        labels = label_column(labels)
        sampling.check_counts(num_samples, keep)
        seeds = sampling.sample_seeds(seed, num_samples, len(labels))
        given = (guidance_scale, temperature, top_k, top_p)
        options = _chosen(given, DEFAULTS)
        rows = await self._draw("label", labels, seeds, keep, options)
        pictures = [[read_picture(p) for p in row] for row in rows.pop("image_bytes")]
        return {"images": np.stack(pictures)} | rows

    @offered
    async def encode(self, images):
        """Turns pictures into ids.

        Args:
            images: `(batch, height, width, 3)`, uint8, or float in [0, 1]; or a list
                of bytes of PNG or JPEG files. Another size than the model's is
                resized by the server.

        Returns:
            int32 `(batch, length)`.

        Raises:
            ValueError, OSError: As `generate`.
        """
        rows = [{"image_bytes": content} for content in files(images)]
        return (await self._predict_rows("encode", rows))["ids"]

    @offered
    async def decode(self, ids):
        """Turns ids into pictures.

        Args:
            ids: int `(batch, length)`.

        Returns:
            uint8 `(batch, height, width, 3)`.

        Raises:
            ValueError, OSError: As `generate`.
        """
        ids = np.asarray(ids)
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                "ids must be integers of shape (batch, length). "
                f"Received: {ids.dtype} of shape {ids.shape}"
            )
        rows = [{"ids": row} for row in ids.astype(np.int32)]
        outputs = await self._predict_rows("decode", rows)
        return np.stack([read_picture(content) for content in outputs["image_bytes"]])

    @offered
    async def upscale(self, images):
        """Enlarges pictures, on a model exported with an upsampler.

        Args:
            images: as `encode` takes them.

        Returns:
            uint8 `(batch, height, width, 3)`.

        Raises:
            ValueError, OSError: As `generate`; also where the model has no upsampler.
        """
        rows = [{"image_bytes": content} for content in files(images)]
        outputs = await self._predict_rows("upscale", rows)
        return np.stack([read_picture(content) for content in outputs["image_bytes"]])

    @offered
    async def score(self, images, prompts):
        """Says how well pictures fit texts, on a model exported with a CoCa.

        Args:
            images: as `encode` takes them.
            prompts: list of str, one for each picture.

        Returns:
            float32 `(batch,)`.

        Raises:
            ValueError, TypeError, OSError: As `generate`; also where the model has no
                CoCa.
        """
        contents, texts = files(images), utf8(prompts)
        if len(contents) != len(texts):
            raise ValueError(
                "images and prompts must be equally many. "
                f"Received: {len(contents)} and {len(texts)}"
            )
        pairs = zip(contents, texts, strict=True)
        rows = [{"image_bytes": content, "prompt": text} for content, text in pairs]
        return (await self._predict_rows("score", rows))["score"]

    @offered
    async def status(self):
        """Asks which versions of the model are there.

        Returns:
            dict of int to str, such as `{1: "AVAILABLE"}`. What keeps a version from
            being served follows its state: `"LOADING: it has no saved_model.pb"`.

        Raises:
            ValueError, OSError: As `generate`.
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
    async def signatures(self):
        """Asks what the model can do.

        Returns:
            list of str, sorted: the names that `predict` takes.

        Raises:
            ValueError, OSError: As `generate`.
        """
        return await self._signatures()

    @offered
    async def predict(self, signature, inputs):
        """Runs any signature.

        Args:
            signature: str. Its name.
            inputs: dict of name to array; strings as object arrays of bytes.

        Returns:
            dict of name to array.

        Raises:
            ValueError, OSError: As `generate`.
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
            raise ValueError(words) from error
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

    async def _draw_best(self, texts, seed, keep, options):
        """Lets the server choose; one prompt a request, for it is many samples."""
        replies = [
            await self._predict("generate_best", draw_columns([text], [seed], options))
            for text in texts
        ]
        rows = {name: np.concatenate([r[name] for r in replies]) for name in replies[0]}
        if rows["score"].shape[1] != keep:
            raise ValueError(
                f"The model {self.model} keeps {rows['score'].shape[1]} pictures in "
                f"generate_best, not {keep}. Give the client its `best`."
            )
        return rows

    async def _draw(self, name, values, seeds, keep, options):
        """Asks for each sample as a row of a signature, and chooses here."""
        signature = {"prompt": "generate", "label": "generate_class"}[name]
        num_samples = len(seeds) // len(values)
        repeated = [value for value in values for _ in range(num_samples)]
        columns = draw_columns(repeated, seeds, options, name)
        replies = [
            await self._predict(
                signature,
                {n: c[start : start + ROWS_PER_REQUEST] for n, c in columns.items()},
            )
            for start in range(0, len(repeated), ROWS_PER_REQUEST)
        ]
        rows = {
            name: np.concatenate([reply[name] for reply in replies]).reshape(
                len(values), num_samples, *replies[0][name].shape[1:]
            )
            for name in replies[0]
        }
        # Of equal scores the earlier seed comes first, as in the served choice.
        best = np.argsort(-rows["score"], axis=1, kind="stable")[:, :keep]
        index = np.arange(len(values))[:, None]
        kept = {
            name: rows[name][index, best] for name in ("image_bytes", "ids", "score")
        }
        return kept | {n: rows[n][:, 0] for n in rows.keys() - kept.keys()}

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
        raise explain(failure, self.address, self.timeout) from failure

    def _name(self, request):
        request.model_spec.name = self.model
        if self.version is not None:
            request.model_spec.version.value = self.version


def _chosen(given, defaults):
    """The options of a draw, by name: those that are None are the defaults."""
    pairs = zip(defaults.items(), given, strict=True)
    return {name: each if own is None else own for (name, each), own in pairs}


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
