"""Requests that a server replays before it is ready, so that nobody waits for them.

What a run does for the first time, at each number of rows, is done before: a server
replays `assets.extra/tf_serving_warmup_requests` of a version before it answers.
"""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_parti import sampling
from keras_parti.models import class_to_image
from keras_parti.serving.options import default_row
from keras_parti.serving.row_sizes import ROW_SIZES, sizes_for


def warm_up_requests(chain, num_samples):
    """One request for each signature and each size that rows are filled up to.

    Args:
        chain: `TextToImage`.
        num_samples: int. Pictures that `generate_best` draws for a row.

    Returns:
        A list of pairs: the name of a signature, and a dict of name to array.
    """
    draw = {"prompt": np.array([b""], object)} | default_row(sampling.DEFAULTS)
    signatures = {
        "serving_default": (draw, ROW_SIZES),
        "generate": (draw, ROW_SIZES),
        "generate_best": (draw, sizes_for(num_samples)),
    }
    signatures |= _tokenizer_rows(chain.tokenizer.config)
    files, _ = signatures["encode"]
    if chain.reranker is not None:
        signatures["score"] = (files | {"prompt": draw["prompt"]}, ROW_SIZES)
    if chain.upsampler is not None:
        largest = {"size": np.array([chain.sizes[-1]], np.int32)}
        signatures["upscale"] = (files | largest, ROW_SIZES)
    return _repeated(signatures)


def class_warm_up_requests(chain):
    """As `warm_up_requests`, for a `ClassToImage`."""
    draw = {"label": np.zeros([1], np.int32)} | default_row(class_to_image.DEFAULTS)
    signatures = {"serving_default": draw, "generate_class": draw}
    signatures = {name: (row, ROW_SIZES) for name, row in signatures.items()}
    return _repeated(signatures | _tokenizer_rows(chain.tokenizer.config))


def _tokenizer_rows(config):
    """The inputs of one row and its numbers of rows, by signature of the tokenizer."""
    white = np.full([config.image_size] * 2 + [3], 255, np.uint8)
    files = {"image_bytes": np.array([tf.io.encode_png(white).numpy()], object)}
    ids = {"ids": np.zeros([1, config.num_tokens], np.int32)}
    return {"encode": (files, ROW_SIZES), "decode": (ids, ROW_SIZES)}


def _repeated(signatures):
    return [
        (name, {key: np.repeat(row, size, axis=0) for key, row in inputs.items()})
        for name, (inputs, sizes) in signatures.items()
        for size in sizes
    ]


def write_warm_up(path, model, requests):
    """Writes requests as a server reads them.

    Args:
        path: `pathlib.Path` of the file.
        model: str. The model's name when served.
        requests: as from `warm_up_requests`.
    """
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            for key, array in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
            writer.write(log.SerializeToString())
