"""SavedModels with signatures, an embedded gRPC server for them, and a client.

`export.export` writes them, `Server` answers TensorFlow Serving's protocol with them,
and `Client` and `AsyncClient` ask any such server, this one or
`tensorflow_model_server`; `check_card` reads the card of a model. Most need TensorFlow,
which takes seconds to import: they are imported when first used.
"""

from keras_parti import lazy

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "Server": "server",
    "check_card": "card",
    "export": None,
    "export_classes": None,
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
