"""Brings TensorFlow up without what its libraries print about themselves."""

import contextlib
import logging
import os
import sys
import warnings


def import_tensorflow(debug=False):
    """Imports TensorFlow, silent unless `debug`.

    Raises:
        ImportError: It is not installed.
    """
    if not debug:
        # 3 leaves out errors as well: at 2, each model that is loaded says that oneDNN
        # lacks int64. What fails is raised in Python.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        os.environ["GRPC_VERBOSITY"] = "ERROR"
    logging.basicConfig(format="keras-parti: %(message)s")
    for name in ("keras_parti.training", "keras_parti.mesh"):
        logging.getLogger(name).setLevel(logging.INFO)
    with contextlib.nullcontext() if debug else silent_stderr():
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  its library introduces itself as well

        tf.config.list_physical_devices()
    if not debug:
        tf.get_logger().setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=FutureWarning)


@contextlib.contextmanager
def silent_stderr():
    """Sends what anyone in this process writes to standard error to nowhere.

    Of Python and C++ alike: while TensorFlow is imported, it prints some lines before
    `TF_CPP_MIN_LOG_LEVEL` counts.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
