"""SavedModels with signatures, an embedded gRPC server for them, and a client.

`export` writes them, `Server` answers TensorFlow Serving's protocol with them, and
`Client` asks any such server, this one or `tensorflow_model_server`.
"""


def __getattr__(name):
    # On first use only: each needs TensorFlow, which takes seconds to import.
    from importlib import import_module

    homes = {"Server": "server", "Client": "client", "export": "export"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)


__all__ = ["Client", "Server", "export"]
