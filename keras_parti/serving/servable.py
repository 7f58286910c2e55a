"""One version of a SavedModel, run the way TensorFlow Serving runs it.

The model goes through the TF1 loader into a session, and a request becomes one run
of it from tensors to tensors. Everything that is wrong with a request is a
`tf.errors.OpError` with the code and the words of `tensorflow_model_server` 2.21.
"""

import dataclasses
import logging
import threading
from pathlib import Path

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the ops of string signatures
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from keras_parti.serving.joining import count_rows
from keras_parti.serving.refusals import invalid, precondition
from keras_parti.serving.tensors import to_array, to_proto

logger = logging.getLogger(__name__)

DEFAULT_SIGNATURE = "serving_default"
WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"


def names(keys):
    """The keys as the real server lists them: sorted, with commas, no spaces."""
    return ",".join(sorted(keys))


def order(signature):
    """The inputs' names in the order of the tensors they feed."""
    return sorted(signature.inputs, key=lambda alias: signature.inputs[alias].name)


def check_whole(folder):
    """Raises `ValueError` where the folder cannot be a finished SavedModel.

    The loader itself takes a model whose variables are missing, and only its first
    request would fail.
    """
    if not (folder / "saved_model.pb").is_file():
        raise ValueError("it has no saved_model.pb")
    try:
        bits = (folder / "saved_model.pb").read_bytes()
        model = saved_model_pb2.SavedModel.FromString(bits)
    except DecodeError as error:
        raise ValueError("its saved_model.pb cannot be read") from error
    nodes = [node for graph in model.meta_graphs for node in graph.graph_def.node]
    variables = folder / "variables"
    if any(node.op in ("VarHandleOp", "VariableV2") for node in nodes):
        if not (variables / "variables.index").is_file():
            raise ValueError("it has no variables/variables.index")
        if not list(variables.glob("variables.data-*")):
            raise ValueError("it has no variables/variables.data-*")


@dataclasses.dataclass(frozen=True)
class Run:
    """A request that was read: a signature, what to feed, and what to fetch.

    Attributes:
        servable: `Servable`.
        name: str. The signature's.
        aliases: list of str. The outputs asked for.
        arrays: list of arrays, the inputs in `order`.
        filled: set of int. Which of these are defaults that the request left out.
    """

    servable: "Servable"
    name: str
    aliases: list
    arrays: list
    filled: frozenset

    def __call__(self):
        """Returns the outputs as a list of arrays."""
        return self.servable.call(self.name, self.aliases, self.arrays)

    def answer(self, outputs):
        """The outputs as a dict of name to `TensorProto`."""
        pairs = zip(self.aliases, outputs, strict=True)
        return {alias: to_proto(output) for alias, output in pairs}


class Servable:
    """A loaded version of a model, safe to call from many threads.

    Args:
        folder: Path of a version folder, `<model>/<version>`.
        warm_up: bool. Whether recorded requests are replayed first.

    Raises:
        ValueError: The folder holds no whole SavedModel with the tag `serve`, or one
            of its warm-up records fails.
    """

    def __init__(self, folder, warm_up=True):
        self.folder = Path(folder)
        self.version = int(self.folder.name)
        check_whole(self.folder)
        self.row_limits = {}  # signature -> the most rows it is warmed up for
        self._runs = {}
        self._lock = threading.Lock()
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            self.signatures = dict(self._load().signature_def)
            self._warm_up(replay=warm_up)
        except Exception:
            self.close()
            raise

    def close(self):
        """Frees the memory. A run that is still at work ends as cancelled."""
        self._runs.clear()
        self._session.close()

    def predict(self, request):
        """Answers one `PredictRequest`, alone.

        Returns:
            A dict of output name to `TensorProto`.

        Raises:
            tf.errors.OpError: What the real server would answer.
        """
        run = self.plan(request)
        return run.answer(run())

    def plan(self, request):
        """Reads a `PredictRequest`, and checks it as far as the real server does.

        Returns:
            `Run`, to be called.

        Raises:
            tf.errors.OpError: What the real server would answer.
        """
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise precondition(f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        feeds = self._feeds(signature, request.inputs)
        aliases = self._outputs(signature, request.output_filter)
        arrays = self._typed(signature, feeds)
        left_out = [a not in request.inputs for a in order(signature)]
        filled = frozenset(i for i, missing in enumerate(left_out) if missing)
        return Run(self, name, aliases, arrays, filled)

    def call(self, name, aliases, arrays):
        """Runs a signature.

        Args:
            name: str. The signature's.
            aliases: sequence of str. The outputs asked for.
            arrays: list of arrays, the inputs in `order`.

        Returns:
            A list of arrays, the outputs.
        """
        return self._callable(name, aliases)(*arrays)

    def _load(self):
        # The loader's notice that it is of TensorFlow 1 is no news to whoever serves.
        noisy = tf.get_logger()
        level = noisy.level
        noisy.setLevel(logging.ERROR)
        try:
            with self._session.graph.as_default():
                return tf.compat.v1.saved_model.loader.load(
                    self._session, ["serve"], str(self.folder)
                )
        except (tf.errors.OpError, RuntimeError, OSError) as error:
            message = str(getattr(error, "message", error)).split("\n")[0]
            raise ValueError(f"it does not load: {message}") from error
        finally:
            noisy.setLevel(level)

    def _callable(self, name, aliases):
        """A function from input arrays, in `order`, to the outputs asked for.

        `_make_callable_from_options` is private, and the only way in Python to the
        session call of the real server. `Session.run` and the functions of
        `tf.saved_model.load` check shapes on their own, and so refuse what TensorFlow
        Serving accepts, with other words.
        """
        key = (name, tuple(aliases))
        with self._lock:
            if key not in self._runs:
                signature = self.signatures[name]
                options = config_pb2.CallableOptions(
                    feed=[signature.inputs[a].name for a in order(signature)],
                    fetch=[signature.outputs[a].name for a in aliases],
                )
                self._runs[key] = self._session._make_callable_from_options(options)
            return self._runs[key]

    @staticmethod
    def _feeds(signature, inputs):
        sent, wanted = set(inputs), set(signature.inputs)
        defaults = signature.defaults
        if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} "
                f"len({{{names(sent)}}}) != len({{{names(wanted)}}}). "
                f"Sent extra: {{{names(sent - wanted)}}}. "
                f"Missing but required: {{{names(wanted - sent)}}}."
            )
        feeds = {}
        for alias in sorted(wanted):
            if alias not in sent and alias not in defaults:
                raise invalid(
                    f"Signature input alias: {alias}(feed name: "
                    f"{signature.inputs[alias].name}) not found in request and no "
                    "default value provided. Inputs expected to be in the request "
                    f"{{{names(sent)}}}, or default input alias set: {names(defaults)}"
                )
            proto = inputs[alias] if alias in sent else defaults[alias]
            feeds[alias] = to_array(proto, alias)
        if not sent <= wanted:
            raise invalid(
                "Inputs contains invalid name. Used request inputs: "
                f"{names(sent & wanted)}, request input: {names(sent)}"
            )
        return feeds

    @staticmethod
    def _typed(signature, feeds):
        # The call below says a wrong type in other words than the real server's.
        for index, alias in enumerate(order(signature)):
            wanted = tf.dtypes.as_dtype(signature.inputs[alias].dtype)
            sent = tf.dtypes.as_dtype(feeds[alias].dtype)
            if sent != wanted:
                raise invalid(
                    f"Expects arg[{index}] to be {wanted.name} "
                    f"but {sent.name} is provided"
                )
        return [feeds[alias] for alias in order(signature)]

    @staticmethod
    def _outputs(signature, output_filter):
        seen = []
        for alias in output_filter:
            if alias not in signature.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} Outputs "
                    f"expected to be in the set {{{names(signature.outputs)}}}."
                )
            if alias in seen:
                raise invalid(f"duplicate output tensor alias: {alias}")
            seen.append(alias)
        return seen or sorted(signature.outputs)

    def _warm_up(self, replay):
        """Replays the recorded requests, so that no user waits for first-time costs.

        It takes a minute or more, so the log says which signature is at work. Of each
        signature, the most rows of a recorded request are noted.
        """
        path = self.folder / WARM_UP
        if not path.is_file():
            return
        runs, number = {}, 0
        try:
            records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
            for number, record in enumerate(records, 1):
                log = prediction_log_pb2.PredictionLog.FromString(record)
                if log.HasField("predict_log"):
                    run = self.plan(log.predict_log.request)
                    runs.setdefault(run.name, []).append((number, run))
                    rows = max(count_rows(run) or 0, self.row_limits.get(run.name, 0))
                    if rows > 1:  # one row alone says nothing of the most
                        self.row_limits[run.name] = rows
            for place, name in enumerate(runs if replay else (), 1):
                logger.info("Warming up %s (%d of %d) ...", name, place, len(runs))
                for number, run in runs[name]:  # noqa: B007  the error names it
                    run()
        except Exception as error:
            message = getattr(error, "message", error)
            raise ValueError(f"warm-up record {number} fails: {message}") from error
