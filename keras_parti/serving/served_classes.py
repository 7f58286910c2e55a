"""A chain of classes as functions of a graph: a VIM in place of text and Parti."""

import tensorflow as tf

from keras_parti.models.class_to_image import DEFAULTS
from keras_parti.serving.graph_inputs import column, demand, graph_function
from keras_parti.serving.served_chain import OPTIONS, ServedChain, finite

LABEL = tf.TensorSpec([None], tf.int32, "label")
DRAW = [LABEL, *(tf.TensorSpec([None], kind, n) for n, kind in OPTIONS.items())]


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
    def _models(self):
        return [self._chain.tokenizer, self._chain.vim]

    @property
    def _model(self):
        return self._chain.vim

    def signatures(self):
        """The functions to serve, by name."""
        generate = self._with_label_defaults()
        return {
            "serving_default": generate,
            "generate_class": generate,
            **self._tokenizer_signatures(),
        }

    def _with_label_defaults(self):
        default = {"seed": 0} | DEFAULTS
        default = {n: tf.constant([default[n]], kind) for n, kind in OPTIONS.items()}

        def run(
            label,
            seed=default["seed"],
            guidance_scale=default["guidance_scale"],
            temperature=default["temperature"],
            top_k=default["top_k"],
            top_p=default["top_p"],
        ):
            columns = (seed, guidance_scale, temperature, top_k, top_p)
            return self._generate_class(label, dict(zip(OPTIONS, columns, strict=True)))

        return graph_function(run, DRAW)

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
