"""The chain as functions of a graph, from what a request holds to its answer."""

import keras
import tensorflow as tf

from keras_parti import sampling
from keras_parti.models.text_to_image import to_uint8
from keras_parti.serving.row_sizes import in_chunks, in_sizes, limited, sizes_for

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

# A picture of few bytes may unfold into any size; this one is 64 MB of RGBA.
MAX_PIXELS = 1 << 24

PROMPT = tf.TensorSpec([None], tf.string, "prompt")
FILES = tf.TensorSpec([None], tf.string, "image_bytes")
OPTIONS = {
    "seed": tf.int64,
    "guidance_scale": tf.float32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
}
DRAW = [PROMPT, *(tf.TensorSpec([None], kind, n) for n, kind in OPTIONS.items())]


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
        return [*self._chain.tokenizer.weights, *self._model.weights]

    @property
    def _model(self):
        return self._chain.parti

    def signatures(self):
        """The functions to serve, by name."""
        generate = self._with_defaults(self._generate)
        length = self._chain.tokenizer.config.num_tokens
        ids = tf.TensorSpec([None, length], tf.int32, "ids")
        return {
            "serving_default": generate,
            "generate": generate,
            "generate_best": self._with_defaults(self._generate_best),
            "encode": _function(self._encode, [FILES]),
            "decode": _function(self._decode, [ids]),
        }

    def _with_defaults(self, draw):
        # Only tensors, and only on a `tf.function`, become defaults of a signature.
        # Their names are inputs of the signature; a list of names would not do.
        default = {"seed": 0} | sampling.DEFAULTS
        default = {n: tf.constant([default[n]], kind) for n, kind in OPTIONS.items()}

        def run(
            prompt,
            seed=default["seed"],
            guidance_scale=default["guidance_scale"],
            temperature=default["temperature"],
            top_k=default["top_k"],
            top_p=default["top_p"],
        ):
            columns = (seed, guidance_scale, temperature, top_k, top_p)
            return draw(prompt, dict(zip(OPTIONS, columns, strict=True)))

        return _function(run, DRAW)

    def _generate(self, prompt, options):
        prompt, options = self._check(prompt, options)
        columns = {"prompt": prompt} | options
        return in_sizes(self._generate_rows, columns)

    def _generate_rows(self, prompt, **options):
        with self._reading_stored():
            text = self._chain.vocabulary.encode_tensor(prompt)
            drawn = self._draw(text["ids"], options)
            return {
                "image_bytes": self._pictures(drawn["ids"]),
                "ids": drawn["ids"],
                "score": drawn["score"],
                "prompt_tokens": text["num_tokens"],
                "truncated": text["truncated"],
            }

    def _generate_best(self, prompt, options):
        prompt, options = self._check(prompt, options)
        columns = {"prompt": prompt} | options
        sizes, keep = sizes_for(self._num_samples), self._keep
        length = self._chain.tokenizer.config.num_tokens
        specs = {
            "image_bytes": tf.TensorSpec([None, keep], tf.string),
            "ids": tf.TensorSpec([None, keep, length], tf.int32),
            "score": tf.TensorSpec([None, keep], tf.float32),
            "prompt_tokens": tf.TensorSpec([None], tf.int32),
            "truncated": tf.TensorSpec([None], tf.bool),
        }
        return in_chunks(self._generate_best_rows, columns, sizes, specs)

    def _generate_best_rows(self, prompt, **options):
        samples = self._num_samples
        rows = {name: tf.repeat(value, samples) for name, value in options.items()}
        steps = tf.tile(tf.range(samples, dtype=tf.int64), [tf.size(prompt)])
        rows["seed"] += steps  # (batch · samples,)
        with self._reading_stored():
            text = self._chain.vocabulary.encode_tensor(prompt)
            drawn = self._draw(text["ids"], rows)
            length = drawn["ids"].shape[1]
            score = tf.reshape(drawn["score"], [-1, samples])
            ids = tf.reshape(drawn["ids"], [-1, samples, length])
            score, best = tf.math.top_k(score, self._keep)
            ids = tf.gather(ids, best, batch_dims=1)  # (batch, keep, length)
            pictures = self._pictures(tf.reshape(ids, [-1, length]))
            return {
                "image_bytes": tf.reshape(pictures, [-1, self._keep]),
                "ids": ids,
                "score": score,
                "prompt_tokens": text["num_tokens"],
                "truncated": text["truncated"],
            }

    def _encode(self, image_bytes):
        size = self._chain.tokenizer.config.image_size
        files = limited(_column(image_bytes, "image_bytes"))
        images = tf.map_fn(
            lambda content: read_picture(content, size),
            files,
            # One at a time: unfolded, each may take half a gigabyte.
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32),
        )
        return in_sizes(self._encode_rows, {"images": images})

    def _encode_rows(self, images):
        with self._reading_stored():
            return {"ids": self._chain.tokenizer.encode(images)}

    def _decode(self, ids):
        config = self._chain.tokenizer.config
        ids = _forget_shape(ids)
        shape = tf.shape(ids)
        fits = tf.logical_and(
            tf.equal(tf.rank(ids), 2),
            tf.equal(tf.reduce_sum(shape[1:]), config.num_tokens),
        )
        known = tf.reduce_all((ids >= 0) & (ids < config.num_codes))
        checks = [
            _demand(
                fits,
                f"ids must have shape (batch, {config.num_tokens}). Received shape:",
                shape,
            ),
            _demand(
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
            return {"image_bytes": self._pictures(ids)}

    def _check(self, prompt, options):
        """Checks what a request sent; every option becomes a column of all rows."""
        prompt = _column(prompt, "prompt")
        return prompt, self._columns(options, tf.size(prompt), "prompt")

    def _columns(self, options, rows, row):
        """Checks options and fills them up to all rows, each of them a `row`."""
        columns = {}
        for name, value in options.items():
            value = _forget_shape(value)
            fits = tf.equal(tf.rank(value), 1) & (
                tf.equal(tf.size(value), 1) | tf.equal(tf.size(value), rows)
            )
            checks = [
                _demand(
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
                    _demand(
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
        some = _demand(
            tf.size(text_ids) > 0,
            "prompt must hold at least one. Received shape of token ids:",
            tf.shape(text_ids),
        )
        with tf.control_dependencies([some]):
            text_ids = tf.identity(text_ids)
        guided = tf.reduce_any(options["guidance_scale"] != 1.0)
        drawn = sampling.generate_ids(
            self._model, text_ids, words, *others, guided=tf.cast(guided, "int32")
        )
        finite = _demand(
            tf.reduce_all(tf.math.is_finite(drawn["score"])),
            "The likelihood of a picture must be finite: the model has weights that "
            "are not, or that overflow. Received scores:",
            drawn["score"],
        )
        with tf.control_dependencies([finite]):
            return {name: tf.identity(value) for name, value in drawn.items()}

    def _pictures(self, ids):
        images = self._chain.tokenizer.decode(ids)
        return tf.io.encode_png(to_uint8(images))

    def _reading_stored(self):
        """Within this, layers see the module's variables as their weights."""
        pairs = zip(self._weights, self.stored, strict=True)
        return keras.StatelessScope(
            state_mapping=[(w, tf.cast(s, w.dtype)) for w, s in pairs]
        )


def read_picture(content, size):
    """Turns a PNG or JPEG file into an image of the model's size, in a graph.

    What is transparent becomes white, as in the training pictures. A picture of
    another size is resized, smoothed where that makes it smaller; one that is not
    square is squeezed.

    Args:
        content: string tensor `()`.
        size: int. Pixels a side.

    Returns:
        float32 `(size, size, 3)` in [0, 1].
    """
    # Enough zeros behind a short file for the look into its header.
    padded = tf.strings.join([content, b"\0" * 32])
    is_png = tf.equal(tf.strings.substr(padded, 0, len(PNG)), PNG)
    is_jpeg = tf.equal(tf.strings.substr(padded, 0, len(JPEG)), JPEG)
    is_known = _demand(
        is_png | is_jpeg,
        "image_bytes must hold PNG or JPEG files. Received one of bytes:",
        tf.strings.length(content),
    )

    def png_shape():
        # Width and height, in that order, follow the signature and a chunk's head.
        header = tf.strings.substr(padded, 16, 8)
        return tf.io.decode_raw(header, tf.int32, little_endian=False)

    with tf.control_dependencies([is_known]):
        sides = tf.cond(
            is_png, png_shape, lambda: tf.image.extract_jpeg_shape(content)[:2]
        )
    pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    is_small = _demand(
        tf.reduce_all(sides > 0) & (pixels <= MAX_PIXELS),
        f"image_bytes must hold pictures of 1 to {MAX_PIXELS} pixels. "
        "Received one with the sides:",
        sides,
    )

    def on_white():
        # With the file's own channels: asked for 4, `decode_png` gives pictures of
        # fewer than 8 bits and no alpha an alpha of 1 to 15, which is next to nothing.
        picture = tf.cast(tf.io.decode_png(content), tf.float32) / 255.0
        channels = tf.shape(picture)[2]
        colours = channels - (1 - channels % 2)  # 2 and 4 have alpha: 1 and 3
        colour, alpha = picture[:, :, :colours], picture[:, :, colours:]
        colour = tf.broadcast_to(colour, [*tf.unstack(tf.shape(picture)[:2]), 3])
        alpha = tf.concat([alpha, tf.ones_like(picture[:, :, :1])], axis=2)[:, :, :1]
        return colour * alpha + (1.0 - alpha)

    def jpeg():
        # The accurate method is the one that other programs decode with.
        picture = tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE")
        return tf.cast(picture, tf.float32) / 255.0

    with tf.control_dependencies([is_small]):
        image = tf.cond(is_png, on_white, jpeg)
    fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    image = tf.cond(
        fits,
        lambda: image,
        lambda: tf.image.resize(image, [size, size], antialias=True),
    )
    return tf.clip_by_value(tf.ensure_shape(image, [size, size, 3]), 0.0, 1.0)


def _function(function, signature):
    # Nothing here needs AutoGraph, which would rewrite Keras' layers as well.
    return tf.function(function, input_signature=signature, autograph=False)


def _is_float(weight):
    return tf.dtypes.as_dtype(weight.dtype).is_floating


def _forget_shape(tensor):
    """The same tensor with nothing known of its shape.

    Servers do not hold requests to the shapes that a signature states, and TensorFlow
    folds a check away as true where it believes to know the shape: from the signature,
    even through `placeholder_with_default`, or from what a later op asks for. Of
    parsed bytes it can know nothing, and a reshape behind the check asks for nothing.
    """
    return tf.io.parse_tensor(tf.io.serialize_tensor(tensor), tensor.dtype)


def _column(tensor, name):
    """The same tensor, checked to have one value a row."""
    tensor = _forget_shape(tensor)
    is_column = _demand(
        tf.equal(tf.rank(tensor), 1),
        f"{name} must have shape (batch,). Received rank:",
        tf.rank(tensor),
    )
    with tf.control_dependencies([is_column]):
        return tf.reshape(tensor, [-1])


def _demand(condition, message, *received):
    """A check inside the graph; its failure is INVALID_ARGUMENT for the caller."""
    return tf.debugging.Assert(condition, [message, *received])
