"""A chain of classes as functions of a graph: a VIM in place of text and Parti."""

import tensorflow as tf

from keras_parti.models.class_to_image import DEFAULTS
from keras_parti.serving.graph_inputs import column, demand
from keras_parti.serving.options import draw_function
from keras_parti.serving.served_chain import ServedChain, finite

LABEL = tf.TensorSpec([None], tf.int32, "label")


class ServedClasses(ServedChain):
    """The chain as functions from tensors to tensors, with its weights as variables.

    Args:
        chain: `ClassToImage`.
        dtype: str, "float32" or "bfloat16". How weights are stored; computed with is
            what the chain computes with.
    """

    def __init__(self, chain, dtype):
        super().__init__(chain, 1, 1, dtype)

    @property
    def models(self):
        """The models whose weights are stored, the tokenizer first."""
        return [self._chain.tokenizer, self._chain.vim]

    @property
    def _model(self):
        return self._chain.vim

    def signatures(self):
        """The functions to serve, by name."""
        generate = draw_function(self._generate_class, LABEL, DEFAULTS)
        return {
            "serving_default": generate,
            "generate_class": generate,
            **self._tokenizer_signatures(),
        }

    def _generate_class(self, label, options):
        config = self._model.config
        label = column(label, "label")
        known = demand(
            tf.reduce_all((label >= 0) & (label <= config.no_class)),
            f"label must lie in [0, {config.no_class}], of which the last is no class. "
            "Received, among others:",
            tf.reduce_min(label),
            tf.reduce_max(label),
        )
        checks, options = [known], self._columns(options, tf.size(label), "label")
        if not config.class_dropout_rate:
            checks.append(
                demand(
                    tf.reduce_all(options["guidance_scale"] == 1.0),
                    "guidance_scale must be 1: the model was trained with all classes "
                    "shown. Received, among others:",
                    tf.reduce_max(options["guidance_scale"]),
                )
            )
        with tf.control_dependencies(checks):
            label = tf.identity(label)
        columns = {"label": label} | options
        with self._reading_stored():
            drawn = self._in_parts(
                self._generate_class_rows, columns, self._drawn_specs()
            )
        return finite(drawn)

    def _generate_class_rows(self, label, **options):
        drawn = self._draw(label[:, None], options)
        return {
            "image_bytes": tf.io.encode_png(self._decoded(drawn["ids"])),
            "ids": drawn["ids"],
            "score": drawn["score"],
            "likelihood": drawn["score"],
        }
