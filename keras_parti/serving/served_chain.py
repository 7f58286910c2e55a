"""The chain as functions of a graph, from what a request holds to its answer."""

import keras
import tensorflow as tf

from keras_parti import sampling
from keras_parti.models.choosing import score_samples
from keras_parti.models.pictures import to_floats, to_uint8
from keras_parti.serving.graph_inputs import (
    column,
    demand,
    forget_shape,
    graph_function,
    read_pictures,
)
from keras_parti.serving.options import OPTIONS, draw_function
from keras_parti.serving.row_sizes import (
    drawing_sizes,
    in_chunks,
    in_sizes,
    limited,
    sizes_for,
)

PROMPT = tf.TensorSpec([None], tf.string, "prompt")
FILES = tf.TensorSpec([None], tf.string, "image_bytes")
# Parts of a request's rows at work at a time: as many as there can be.
PARTS = 4


class ServedChain(tf.Module):
    """The chain as functions from tensors to tensors, with its weights as variables.

    A Keras model hung on a `tf.Module` is read by `tf.saved_model.load` and not by
    TensorFlow Serving, which finds none of its variables. So the module holds plain
    variables, in the precision to be stored, and the layers read these.

    Args:
        chain: `TextToImage`.
        num_samples: int. Pictures that `generate_best` draws for each prompt.
        keep: int. How many of them it returns.
        dtype: str, "float32" or "bfloat16". How weights are stored; computed with is
            what the chain computes with.
    """

    def __init__(self, chain, num_samples, keep, dtype):
        super().__init__()
        self._chain = chain
        self._num_samples = num_samples
        self._keep = keep
        self.stored = [
            tf.Variable(
                tf.cast(w.value, dtype if _is_float(w) else w.dtype),
                trainable=False,
                name=w.path.replace("/", "_"),
            )
            for w in self._weights
        ]

    @property
    def _weights(self):
        # No attribute: a module writes all variables that its attributes hold. Without
        # the states of dropout's seeds, which a server never draws from.
        return [weight for model in self.models for weight in model.weights]

    @property
    def models(self):
        """The models whose weights are stored, the tokenizer first."""
        chain = self._chain
        models = [chain.tokenizer, chain.parti]
        if chain.reranker is not None:
            models.append(chain.reranker)
        if chain.upsampler is not None:
            models.append(chain.folded_upsampler)
        return models

    @property
    def _model(self):
        return self._chain.parti

    @property
    def _length(self):
        return self._chain.tokenizer.config.num_tokens

    def signatures(self):
        """The functions to serve, by name."""
        generate = draw_function(self._generate, PROMPT, sampling.DEFAULTS)
        signatures = {
            "serving_default": generate,
            "generate": generate,
            "generate_best": draw_function(
                self._generate_best, PROMPT, sampling.DEFAULTS
            ),
            **self._tokenizer_signatures(),
        }
        if self._chain.reranker is not None:
            signatures["score"] = graph_function(self._score, [FILES, PROMPT])
        if self._chain.upsampler is not None:
            signatures["upscale"] = self._with_default_size()
        return signatures

    def _tokenizer_signatures(self):
        ids = tf.TensorSpec([None, self._length], tf.int32, "ids")
        return {
            "encode": graph_function(self._encode, [FILES]),
            "decode": graph_function(self._decode, [ids]),
        }

    def _with_default_size(self):
        chain = self._chain
        once = chain.tokenizer.config.image_size * chain.upsampler.scale
        default = tf.constant([once], tf.int32)

        def run(image_bytes, size=default):
            return self._upscale(image_bytes, size)

        return graph_function(run, [FILES, tf.TensorSpec([None], tf.int32, "size")])

    def _generate(self, prompt, options):
        prompt, options = self._check(prompt, options)
        texts, report = self._read(prompt)
        specs = self._drawn_specs()
        with self._reading_stored():
            drawn = self._in_parts(self._generate_rows, texts | options, specs)
        return finite(drawn) | report

    def _generate_rows(self, text_ids, reader_ids=None, **options):
        drawn = self._draw(text_ids, options)
        images = self._decoded(drawn["ids"])
        likelihood = score = drawn["score"]
        if reader_ids is not None:
            score = score_samples(self._chain.reranker, to_floats(images), reader_ids)
        return {
            "image_bytes": tf.io.encode_png(images),
            "ids": drawn["ids"],
            "score": score,
            "likelihood": likelihood,
        }

    def _generate_best(self, prompt, options):
        prompt, options = self._check(prompt, options)
        texts, report = self._read(prompt)
        sizes, specs = sizes_for(self._num_samples), self._drawn_specs(self._keep)
        with self._reading_stored():
            columns = texts | options
            drawn = in_chunks(self._generate_best_rows, columns, sizes, specs)
        return finite(drawn) | report

    def _generate_best_rows(self, text_ids, reader_ids=None, **options):
        samples = self._num_samples
        rows = {name: tf.repeat(value, samples) for name, value in options.items()}
        steps = tf.tile(tf.range(samples, dtype=tf.int64), [tf.shape(text_ids)[0]])
        rows["seed"] += steps  # (batch · samples,)
        drawn = self._draw(text_ids, rows)
        likelihood = score = drawn["score"]
        if reader_ids is not None:
            images = to_floats(self._decoded(drawn["ids"]))
            score = score_samples(self._chain.reranker, images, reader_ids)
        score = tf.reshape(score, [-1, samples])
        ids = tf.reshape(drawn["ids"], [-1, samples, self._length])
        score, best = tf.math.top_k(score, self._keep)
        ids = tf.gather(ids, best, batch_dims=1)  # (batch, keep, length)
        images = self._decoded(tf.reshape(ids, [-1, self._length]))
        files = tf.io.encode_png(images)
        return {
            "image_bytes": tf.reshape(files, [-1, self._keep]),
            "ids": ids,
            "score": score,
            "likelihood": tf.reduce_sum(tf.reshape(likelihood, [-1, samples]), 1),
        }

    def _read(self, prompt):
        """Returns the ids of prompts for the parts that read them, and what to report.

        Outside of the parts that rows are drawn in, as are weights and checks: parts
        that have effects TensorFlow does one after the other.
        """
        prompt = limited(prompt)
        text = self._chain.vocabulary.encode_tensor(prompt)
        ids = {"text_ids": text["ids"]}
        if self._chain.reranker is not None:
            ids["reader_ids"] = self._chain.reader.encode_tensor(prompt)["ids"]
        report = {"prompt_tokens": text["num_tokens"], "truncated": text["truncated"]}
        return ids, report

    def _in_parts(self, draw, columns, specs):
        """Draws rows in parts of which none changes with what stands beside it."""
        sizes = drawing_sizes(tf.reduce_any(columns["guidance_scale"] != 1.0))
        return in_chunks(draw, columns, sizes, specs, abreast=PARTS)

    def _drawn_specs(self, *keep):
        """What is drawn for a row: one picture, or as many as are kept."""
        return {
            "image_bytes": tf.TensorSpec([None, *keep], tf.string),
            "ids": tf.TensorSpec([None, *keep, self._length], tf.int32),
            "score": tf.TensorSpec([None, *keep], tf.float32),
            "likelihood": tf.TensorSpec([None], tf.float32),
        }

    def _encode(self, image_bytes):
        images = read_pictures(image_bytes, self._chain.tokenizer.config.image_size)
        return in_sizes(self._encode_rows, {"images": images})

    def _encode_rows(self, images):
        with self._reading_stored():
            return {"ids": self._chain.tokenizer.encode(images)}

    def _decode(self, ids):
        config = self._chain.tokenizer.config
        ids = forget_shape(ids)
        shape = tf.shape(ids)
        fits = tf.logical_and(
            tf.equal(tf.rank(ids), 2),
            tf.equal(tf.reduce_sum(shape[1:]), config.num_tokens),
        )
        known = tf.reduce_all((ids >= 0) & (ids < config.num_codes))
        checks = [
            demand(
                fits,
                f"ids must have shape (batch, {config.num_tokens}). Received shape:",
                shape,
            ),
            demand(
                known,
                f"ids must lie in [0, {config.num_codes - 1}]. Received, among others:",
                tf.reduce_min(ids),
                tf.reduce_max(ids),
            ),
        ]
        with tf.control_dependencies(checks):
            ids = tf.reshape(ids, [-1, config.num_tokens])
        return in_sizes(self._decode_rows, {"ids": ids})

    def _decode_rows(self, ids):
        with self._reading_stored():
            return {"image_bytes": tf.io.encode_png(self._decoded(ids))}

    def _score(self, image_bytes, prompt):
        prompt = column(prompt, "prompt")
        files = column(image_bytes, "image_bytes")
        equal = demand(
            tf.equal(tf.size(files), tf.size(prompt)),
            "image_bytes and prompt must be equally many. Received:",
            tf.size(files),
            tf.size(prompt),
        )
        with tf.control_dependencies([equal]):
            images = read_pictures(files, self._chain.reranker.config.image_size)
        return in_sizes(self._score_rows, {"images": images, "prompt": prompt})

    def _score_rows(self, images, prompt):
        with self._reading_stored():
            return {"score": self._scores(images, prompt)}

    def _upscale(self, image_bytes, size):
        chain = self._chain
        images = read_pictures(image_bytes, chain.tokenizer.config.image_size)
        size = self._columns({"size": size}, tf.shape(images)[0], "picture")["size"]
        known = demand(
            tf.reduce_all(tf.reduce_any(size[:, None] == chain.sizes, axis=1)),
            f"size must be one of {', '.join(map(str, chain.sizes))}. Received:",
            size,
        )
        with tf.control_dependencies([known]):
            size = tf.identity(size)
        return in_sizes(self._upscale_rows, {"images": images, "size": size})

    def _upscale_rows(self, images, size):
        """Enlarges all rows as often as one of them asks for."""
        images = to_uint8(images)
        files = tf.io.encode_png(images)
        with self._reading_stored():
            for larger in self._chain.sizes[1:]:
                asked = size >= larger
                images = tf.cond(
                    tf.reduce_any(asked),
                    lambda small=images: self._enlarged(small),
                    lambda small=images: small,
                )
                files = tf.where(asked, tf.io.encode_png(images), files)
        return {"image_bytes": files}

    def _enlarged(self, images):
        return to_uint8(self._chain.folded_upsampler.upscale(to_floats(images)))

    def _check(self, prompt, options):
        """Checks what a request sent; every option becomes a column of all rows."""
        prompt = column(prompt, "prompt")
        return prompt, self._columns(options, tf.size(prompt), "prompt")

    def _columns(self, options, rows, row):
        """Checks options and fills them up to all rows, each of them a `row`."""
        columns = {}
        for name, value in options.items():
            value = forget_shape(value)
            fits = tf.equal(tf.rank(value), 1) & (
                tf.equal(tf.size(value), 1) | tf.equal(tf.size(value), rows)
            )
            checks = [
                demand(
                    fits,
                    f"{name} must have one value, or one for each {row}. Received "
                    f"shape, and number of {row}s:",
                    tf.shape(value),
                    rows,
                )
            ]
            if name in sampling.RANGES:
                low, high = sampling.RANGES[name]
                flat = tf.reshape(value, [-1])
                good = (flat >= low) & (flat <= high)  # False of a NaN
                checks.append(
                    demand(
                        tf.reduce_all(good),
                        f"{name} must lie in [{low}, {high}]. Received:",
                        tf.boolean_mask(flat, ~good),
                    )
                )
            with tf.control_dependencies(checks):
                columns[name] = tf.broadcast_to(value, [rows])
        return columns

    def _draw(self, text_ids, options):
        """Samples as many rows for each text as there are more options than texts."""
        words = tf.bitcast(options["seed"], tf.uint32)  # (rows, 2)
        others = [options[name] for name in OPTIONS if name != "seed"]
        guided = tf.reduce_any(options["guidance_scale"] != 1.0)
        return sampling.generate_ids(
            self._model, text_ids, words, *others, guided=tf.cast(guided, "int32")
        )

    def _decoded(self, ids):
        """Returns the pictures of ids, uint8."""
        return to_uint8(self._chain.tokenizer.decode(ids))

    def _scores(self, images, prompt):
        """Returns what the reranker says of pictures, one or several for a prompt."""
        text_ids = self._chain.reader.encode_tensor(prompt)["ids"]
        return score_samples(self._chain.reranker, images, text_ids)

    def _reading_stored(self):
        """Within this, layers see the module's variables as their weights."""
        pairs = zip(self._weights, self.stored, strict=True)
        return keras.StatelessScope(
            state_mapping=[(w, tf.cast(s, w.dtype)) for w, s in pairs]
        )


def finite(drawn):
    """Checks the likelihood of what was drawn; returns the rest."""
    likelihood = drawn["likelihood"]
    check = demand(
        tf.reduce_all(tf.math.is_finite(likelihood)),
        "The likelihood of a picture must be finite: the model has weights that are "
        "not, or that overflow. Received scores:",
        likelihood,
    )
    with tf.control_dependencies([check]):
        return {n: tf.identity(x) for n, x in drawn.items() if n != "likelihood"}


def _is_float(weight):
    return tf.dtypes.as_dtype(weight.dtype).is_floating
