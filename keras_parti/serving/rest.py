"""TensorFlow Serving's REST API, and a page, over HTTP.

    GET  /v1/models/NAME[/versions/V|/labels/L]             status
    GET  /v1/models/NAME[/versions/V|/labels/L]/metadata    signatures
    POST /v1/models/NAME[/versions/V|/labels/L]:predict     see `json_tensors`
    GET  /monitoring/prometheus/metrics
    GET  /                                                  the page

The page is served from the same origin as the API, for the first model.
"""

import json
import re

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from keras_parti.serving import json_tensors
from keras_parti.serving.page import page
from keras_parti.serving.refusals import HTTP, describe, invalid
from keras_parti.serving.tensors import to_array, to_proto

METRICS = "/monitoring/prometheus/metrics"
MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
ACTION = re.compile(MODEL + r":(classify|regress|predict)", re.IGNORECASE)
STATUS = re.compile(MODEL + r"(/metadata)?", re.IGNORECASE)

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    429: "Too Many Requests",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
LOST = b"""<HTML><HEAD>
<TITLE>404 Not Found</TITLE>
</HEAD><BODY>
<H1>Not Found</H1>
</BODY></HTML>
"""


class Rest:
    """A WSGI application.

    Args:
        protocol: `Protocol`.
        with_page: bool. Whether the page is served.
        patience: float. Seconds that a request may wait for its turn, since over HTTP
            it brings no deadline of its own; None is for ever.
    """

    def __init__(self, protocol, with_page=False, patience=None):
        self._protocol = protocol
        self._patience = patience
        self._with_page = with_page

    def __call__(self, environ, start_response):
        """Answers one request."""
        # WSGI hands a path over as Latin-1 of the unquoted bytes.
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        status, kind, content = self.answer(environ["REQUEST_METHOD"], path, environ)
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response(f"{status} {REASONS[status]}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    def answer(self, method, path, environ):
        """The status, the content type and the bytes of an answer."""
        get = method in ("GET", "HEAD")
        if get and path == "/" and self._with_page:
            name = next((model.name for model in self._protocol.models), "")
            return 200, "text/html; charset=utf-8", page(name)
        if get and path == METRICS:
            kind = "text/plain; version=0.0.4; charset=utf-8"
            return 200, kind, self._protocol.metrics()
        if not path.lower().startswith("/v1/"):
            return 404, "text/html", LOST
        try:
            if method == "POST" and (found := ACTION.fullmatch(path)):
                spec = _spec(*found.group(1, 2, 3))
                document = self._act(found[4].lower(), spec, environ)
            elif get and (found := STATUS.fullmatch(path)):
                spec = _spec(*found.group(1, 2, 3))
                document = self._describe(spec, bool(found[4]))
            else:
                raise invalid(f"Malformed request: {method} {path}")
        except Exception as error:
            code, words = describe(error)
            document = {"error": words}
            return HTTP.get(code, 500), "application/json", _dump(document)
        return 200, "application/json", _dump(document)

    def _act(self, action, spec, environ):
        document = json_tensors.parse(environ["wsgi.input"].read())
        name = document.get("signature_name", "")
        if not isinstance(name, str):
            raise invalid(
                f"JSON Value: {json_tensors.show(document)} not formatted correctly. "
                "'signature_name' key must be a string value."
            )
        spec.signature_name = name
        if action == "classify":
            request = classification_pb2.ClassificationRequest(model_spec=spec)
            return self._protocol.classify(request)
        if action == "regress":
            request = regression_pb2.RegressionRequest(model_spec=spec)
            return self._protocol.regress(request)
        infos, defaults = self._protocol.input_infos(spec)
        arrays, by_rows = json_tensors.read_inputs(document, infos, defaults)
        request = predict_pb2.PredictRequest(model_spec=spec)
        for alias, array in arrays.items():
            request.inputs[alias].CopyFrom(to_proto(array))
        gone = environ.get("waitress.client_disconnected")
        response = self._protocol.predict(request, gone, self._patience, "REST")
        outputs = {a: to_array(p, a) for a, p in sorted(response.outputs.items())}
        return json_tensors.write_outputs(outputs, by_rows)

    def _describe(self, spec, metadata):
        if not metadata:
            request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
            return _dict(self._protocol.status(request))
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response = self._protocol.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": _dict(response.model_spec),
            "metadata": {"signature_def": _dict(signatures)},
        }


def _spec(name, version, label):
    if version and int(version) >= 1 << 63:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    spec = model_pb2.ModelSpec(name=name)
    if version:
        spec.version.value = int(version)
    if label:
        spec.version_label = label
    return spec


def _dict(message):
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _dump(document):
    return json.dumps(document, indent=4 if "error" in document else None).encode()
