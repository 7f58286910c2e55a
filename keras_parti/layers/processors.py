"""Where what is computed may depend on whose kernels compute it."""

import keras


def on_processor() -> bool:
    """Whether TensorFlow computes on a processor, where its own kernels decide."""
    if keras.backend.backend() != "tensorflow":
        return False
    return keras.distribution.list_devices()[0].startswith("cpu")
