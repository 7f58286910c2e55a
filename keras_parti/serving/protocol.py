"""What TensorFlow Serving's protocol asks of a server, whatever carries it.

gRPC (`grpc_services`) and REST (`rest`) hand their requests to this one place. What is
wrong with a request is a `tf.errors.OpError` with the real server's code and words.
"""

import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_management_pb2,
    predict_pb2,
)

from keras_parti.serving.refusals import invalid, precondition
from keras_parti.serving.servable import DEFAULT_SIGNATURE


class Protocol:
    """Answers requests, messages in and messages out; safe from many threads.

    Args:
        models: `Models`.
        scheduler: `Scheduler`, which decides when a request runs.
        monitor: `Monitor`, which counts the runs.
    """

    def __init__(self, models, scheduler, monitor):
        self.models = models
        self._scheduler = scheduler
        self._monitor = monitor

    def predict(self, request, abandoned=None, patience=None, entrypoint="GRPC"):
        """Runs a signature.

        Args:
            request: `PredictRequest`.
            abandoned: function without arguments that says whether nobody waits for
                the answer any more.
            patience: float. Seconds that it may wait for its turn; None is for ever.
            entrypoint: str, "GRPC" or "REST".

        Returns:
            `PredictResponse`.
        """
        model = request.model_spec.name
        model = model if model in self.models else ""
        with self._monitor.measured(model, entrypoint):
            return self._predict(request, abandoned, patience)

    def metadata(self, request):
        """Describes the signatures; a `GetModelMetadataResponse`."""
        _spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._lease(request) as servable:
            _name(response, request, servable)
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request):
        """Lists versions and their states; a `GetModelStatusResponse`."""
        return self.models.status(_spec(request))

    def reload(self, request):
        """Serves other models; a `ReloadConfigResponse`."""
        self.models.reload(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response

    def classify(self, request):
        """Refuses: a text-to-image model has no classifier."""
        self._refuse(request, "classification", (1, 2), "one or two output Tensors")

    def regress(self, request):
        """Refuses, as `classify`."""
        self._refuse(request, "regression", (1,), "one output Tensor")

    def multi_inference(self, request):
        """Refuses, as `classify`."""
        if not request.tasks:
            raise invalid("ModelSpec has no name specified.")
        task = request.tasks[0]
        with self._lease(task):
            words = f"Unsupported signature method_name: {task.method_name}"
        raise tf.errors.UnimplementedError(None, None, words)

    def metrics(self):
        """What was counted, in Prometheus' text format; bytes."""
        return self._monitor.text(self._scheduler)

    def input_infos(self, spec):
        """The inputs of a signature and the names of its defaults, for REST.

        Returns:
            A dict of name to `TensorInfo`, and a set of str.
        """
        with self.models.lease(spec) as servable:
            name = spec.signature_name or DEFAULT_SIGNATURE
            if name not in servable.signatures:
                raise invalid(
                    f'Serving signature name: "{name}" not found in signature def'
                )
            signature = servable.signatures[name]
            return dict(signature.inputs), set(signature.defaults)

    def _predict(self, request, abandoned, patience):
        with self._lease(request) as servable:
            run = servable.plan(request)
            outputs = self._scheduler.run(run, abandoned, patience)
            response = predict_pb2.PredictResponse()
            _name(response, request, servable, run.name)
        for alias, proto in run.answer(outputs).items():
            response.outputs[alias].CopyFrom(proto)
        return response

    def _lease(self, request):
        return self.models.lease(_spec(request))

    def _refuse(self, request, kind, num_outputs, wanted):
        """What the real server says of a signature that is none of this kind."""
        with self._lease(request) as servable:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if name not in servable.signatures:
                raise invalid(f"No signature was found with the name: {name}")
            signature = servable.signatures[name]
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if len(signature.outputs) not in num_outputs:
            raise invalid(f"Expected {wanted}, found {len(signature.outputs)}")
        raise precondition(f"No {kind} inputs found in SignatureDef: {signature}")


def _spec(request):
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _name(response, request, servable, signature_name=""):
    """Says in an answer what answered."""
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = signature_name
