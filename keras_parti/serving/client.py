"""A client of TensorFlow Serving for exported text-to-image models."""

import io
import random
import time

import grpc
import numpy as np
from PIL import Image

# Samples a request may carry, so that a request's time and memory stay bounded.
ROWS_PER_REQUEST = 16

# What a server says that is too busy: the real one, and gRPC's own in Python.
BUSY = ("Server Threadpool Exhausted", "Concurrent RPC limit exceeded")

# Statuses that the request itself caused; other failures are the server's.
MISTAKES = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class Client:
    """Asks a server for pictures, over gRPC.

    Any server of TensorFlow Serving's protocol will do: `keras-parti serve`, or
    `tensorflow_model_server`. Safe to use from many threads.

    Args:
        address: str. `host:port`.
        model: str. The model's name there.
        version: int. Which version to ask; by default the newest.
        timeout: float. Seconds that one request may take, with its repetitions.
        retries: int. How often a request is repeated while the server cannot be
            reached or is too busy, after 0.1, 0.2, 0.4, ... seconds.
        best: pair of int. `num_samples` and `keep` that the model was exported with;
            the protocol does not tell them.

    Example:
        >>> client = Client("localhost:8500", model="emoji")
        >>> pictures = client.generate(["a red apple"])["images"]  # doctest: +SKIP
    """

    def __init__(
        self,
        address="localhost:8500",
        model="emoji",
        version=None,
        timeout=120.0,
        retries=5,
        best=(16, 4),
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
        # gRPC takes 4 MB at most by default, less than a grid of large pictures.
        unlimited = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        self._channel = grpc.insecure_channel(address, options=unlimited)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def generate(
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
            OSError: The server is gone (`ConnectionError`), too slow
                (`TimeoutError`), or fails.
        """
        # Deferred, because it imports Keras, and with it a backend.
        from keras_parti import sampling

        if isinstance(prompts, str | bytes):
            raise TypeError(f"prompts must be a list of strings. Received: {prompts!r}")
        texts = [_utf8(prompt) for prompt in prompts]
        if not texts:
            raise ValueError("prompts must hold at least one. Received: []")
        sampling.check_counts(num_samples, keep)
        seeds = sampling.sample_seeds(seed, num_samples, len(texts))
        given = {
            "guidance_scale": guidance_scale,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        options = sampling.DEFAULTS | {k: v for k, v in given.items() if v is not None}
        if (num_samples, keep) == self.best:
            rows = self._draw_best(texts, seed, keep, options)
        else:
            rows = self._draw(texts, seeds, keep, options)
        return {
            "images": np.stack(
                [[read_picture(p) for p in r] for r in rows["image_bytes"]]
            ),
            "score": rows["score"],
            "ids": rows["ids"],
            "num_tokens": rows["prompt_tokens"],
            "truncated": rows["truncated"],
        }

    def encode(self, images):
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
        files = [i if isinstance(i, bytes) else write_picture(i) for i in images]
        chunks = [
            self.predict("encode", {"image_bytes": np.array(chunk, object)})["ids"]
            for chunk in _chunks(files)
        ]
        return np.concatenate(chunks)

    def decode(self, ids):
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
        files = []
        for chunk in _chunks(ids):
            outputs = self.predict("decode", {"ids": chunk.astype(np.int32)})
            files.extend(outputs["image_bytes"])
        return np.stack([read_picture(content) for content in files])

    def status(self):
        """Asks which versions of the model are there.

        Returns:
            dict of int to str, such as `{1: "AVAILABLE"}`.

        Raises:
            ValueError, OSError: As `generate`.
        """
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model
        reply = self._call(self._models.GetModelStatus, request)
        state = get_model_status_pb2.ModelVersionStatus.State.Name
        return {s.version: state(s.state) for s in reply.model_version_status}

    def predict(self, signature, inputs):
        """Runs any signature.

        Args:
            signature: str. Its name.
            inputs: dict of name to array; strings as object arrays of bytes.

        Returns:
            dict of name to array.

        Raises:
            ValueError, OSError: As `generate`.
        """
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        reply = self._call(self._prediction.Predict, request)
        return {name: tf.make_ndarray(value) for name, value in reply.outputs.items()}

    def close(self):
        """Closes the connection."""
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _draw_best(self, texts, seed, keep, options):
        """Lets the server choose; one prompt a request, for it is many samples."""
        replies = [
            self.predict("generate_best", _columns([text], [seed], options))
            for text in texts
        ]
        rows = {name: np.concatenate([r[name] for r in replies]) for name in replies[0]}
        if rows["score"].shape[1] != keep:
            raise ValueError(
                f"The model {self.model} keeps {rows['score'].shape[1]} pictures in "
                f"generate_best, not {keep}. Give the client its `best`."
            )
        return rows

    def _draw(self, texts, seeds, keep, options):
        """Asks for each sample as a row of `generate`, and chooses here."""
        num_samples = len(seeds) // len(texts)
        repeated = [text for text in texts for _ in range(num_samples)]
        wanted = list(zip(repeated, seeds, strict=True))
        replies = [
            self.predict("generate", _columns(*zip(*chunk, strict=True), options))
            for chunk in _chunks(wanted)
        ]
        rows = {
            name: np.concatenate([reply[name] for reply in replies]).reshape(
                len(texts), num_samples, *replies[0][name].shape[1:]
            )
            for name in replies[0]
        }
        # Of equal scores the earlier seed comes first, as in the served choice.
        best = np.argsort(-rows["score"], axis=1, kind="stable")[:, :keep]
        index = np.arange(len(texts))[:, None]
        kept = {
            name: rows[name][index, best] for name in ("image_bytes", "ids", "score")
        }
        return kept | {
            name: rows[name][:, 0] for name in ("prompt_tokens", "truncated")
        }

    def _call(self, method, request):
        """One call: repeated while the server is away or busy, its errors ours."""
        end = time.monotonic() + self.timeout
        for attempt in range(self.retries + 1):
            try:
                return method(request, timeout=max(end - time.monotonic(), 0.001))
            except grpc.RpcError as error:
                failure = error
            pause = 0.1 * 2**attempt * random.uniform(0.5, 1.0)
            last = attempt == self.retries or time.monotonic() + pause >= end
            if last or not _is_passing(failure):
                break
            time.sleep(pause)
        raise self._explain(failure) from failure

    def _explain(self, failure):
        code, words = failure.code(), failure.details() or "no details"
        if code == grpc.StatusCode.UNAVAILABLE:
            return ConnectionError(
                f"No server answers at {self.address} ({words}). "
                "Start one with `keras-parti serve DIR`."
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimeoutError(
                f"The server at {self.address} did not answer in {self.timeout:g} s. "
                "Ask for fewer pictures at once, or give a longer timeout."
            )
        if code == grpc.StatusCode.NOT_FOUND:
            words += (
                f". The server at {self.address} has no such model or version; its "
                "name is that of the folder served, or what `serve --name` said"
            )
        if _is_passing(failure):
            return ConnectionError(f"The server at {self.address} is too busy: {words}")
        if code in MISTAKES:
            return ValueError(_plain(words))
        return OSError(f"The server at {self.address} failed: {code.name}: {words}")


def read_picture(content):
    """Turns bytes of a PNG or JPEG file into uint8 `(height, width, 3)`."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def write_picture(image):
    """Turns an image, uint8 or float in [0, 1], into bytes of a PNG file.

    Raises:
        ValueError: It has another shape, or values that are no colours.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"An image must be (height, width, 3). Received shape: {image.shape}"
        )
    if image.dtype != np.uint8:
        if not (np.issubdtype(image.dtype, np.floating) and _in_range(image)):
            raise ValueError(
                "An image must be uint8, or float in [0, 1]. "
                f"Received: {image.dtype} in [{image.min()}, {image.max()}]"
            )
        image = np.round(image * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _in_range(image):
    return bool(np.all((image >= 0) & (image <= 1)))


def _utf8(prompt):
    if not isinstance(prompt, str | bytes):
        raise TypeError(f"prompts must be strings. Received: {prompt!r}")
    # A shell's odd bytes become lone surrogates; the vocabulary reads them as it can.
    return (
        prompt.encode("utf-8", "surrogatepass") if isinstance(prompt, str) else prompt
    )


def _columns(texts, seeds, options):
    """Full columns of every input.

    A server that joins requests into one batch cannot join columns of unequal length.
    """
    rows = len(texts)
    return {
        "prompt": np.array(texts, object),
        "seed": np.array(seeds, np.int64),
        "guidance_scale": np.full(rows, options["guidance_scale"], np.float32),
        "temperature": np.full(rows, options["temperature"], np.float32),
        "top_k": np.full(rows, options["top_k"], np.int32),
        "top_p": np.full(rows, options["top_p"], np.float32),
    }


def _chunks(items):
    if len(items) == 0:
        raise ValueError("At least one must be given. Received none.")
    for start in range(0, len(items), ROWS_PER_REQUEST):
        yield items[start : start + ROWS_PER_REQUEST]


def _is_passing(failure):
    """Whether the same request may succeed a moment later."""
    if failure.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return any(words in (failure.details() or "") for words in BUSY)
    return failure.code() == grpc.StatusCode.UNAVAILABLE


def _plain(words):
    """The server's words without what a graph puts around those of its own checks."""
    words = words.split("\n\t [[")[0]
    if words.startswith("assertion failed: ["):
        words = words.removeprefix("assertion failed: [").replace("] [", " [", 1)
    return " ".join(words.split())
