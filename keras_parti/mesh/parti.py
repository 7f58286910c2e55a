"""Parti as a Mesh-TensorFlow graph: the maths of `models.parti` in named axes.

Every sum over a split axis becomes a sum over devices, which Mesh-TensorFlow puts where
it is needed. Activations between the layers are `(batch, length, embed)` or `(batch,
memory, embed)`; inside a layer `positions`, `keys` and `blocks` name places of a
sequence that is whole on each device, whatever the layout.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_parti.layers.attention import MASKED
from keras_parti.layers.embeddings import PAD
from keras_parti.layers.transformer import LAYER_NORM_EPSILON
from keras_parti.layers.window import mask_between, window_length
from keras_parti.mesh.compat import mtf
from keras_parti.mesh.noise import Noise
from keras_parti.mesh.operations import attention_block
from keras_parti.mesh.variables import variables_of

RATES = ("dropout_rate", "activation_dropout_rate", "attention_dropout_rate")


class PartiGraph:
    """A Parti whose tensors have named axes.

    Args:
        config: `PartiConfig`.
        mesh: `mtf.Mesh` that the variables are made on.
        layout: `keras_parti.mesh.Layout`. It decides how far tables of ids are padded,
            so that `vocab` splits evenly.
        batch_size: int. Pictures of a step, over all devices.
        dtype: str. "float32", or "mixed_bfloat16": weights, norms, softmax, logits and
            loss in float32, the rest in bfloat16, as Parti was trained (section 3).
        rematerialise: bool. Whether the backward pass computes the insides of a block
            again, from its inputs.
        step: `mtf.Tensor`, int32 scalar, or None. The number of the step, which dropout
            draws from. None: no dropout, in training either.
    """

    def __init__(
        self,
        config,
        mesh,
        layout,
        batch_size,
        dtype="float32",
        rematerialise=False,
        step=None,
    ):
        self.config, self.mesh, self.layout = config, mesh, layout
        self.dtype = tf.bfloat16 if dtype == "mixed_bfloat16" else tf.float32
        self.rematerialise = rematerialise
        self.noise = None if step is None else Noise(mesh, step)
        self.training = False
        self.batch = mtf.Dimension("batch", batch_size)
        self.embed = mtf.Dimension("embed", config.dim)
        self.heads = mtf.Dimension("heads", config.heads)
        self.kv = mtf.Dimension("kv", config.dim // config.heads)
        self.variables, self.weights = {}, {}
        for variable in variables_of(config):
            stacked = self.variable(variable.weight)
            self.variables[variable.name] = stacked
            members = mtf.unstack(stacked, stacked.shape.dims[0])
            self.weights |= zip(variable.members, members, strict=True)

    @property
    def changes_in_training(self):
        """Whether a training step computes logits otherwise than a test."""
        rates = [self._rate(name) for name in RATES]
        return self.rematerialise or (self.noise is not None and any(rates))

    def variable(self, array, trainable=True):
        """Returns a new variable of the mesh, for a `variables.Array`."""
        return mtf.get_variable(
            self.mesh,
            array.name,
            mtf.Shape(
                [
                    mtf.Dimension(axis, self.layout.padded(axis, size))
                    for axis, size in zip(array.axes, array.shape, strict=True)
                ]
            ),
            dtype=tf.as_dtype(array.dtype),
            initializer=tf.zeros_initializer(),
            trainable=trainable,
        )

    def predict(self, text_ids, before_ids, training=False):
        """Returns float32 logits `(batch, positions, vocab)` of an image's ids.

        Args:
            text_ids: int32 `(batch, text_length)`, a tensor of TensorFlow.
            before_ids: int32 `(batch, num_tokens)`, a tensor of TensorFlow. The id
                before each of them, see `ids_before`.
            training: bool. Whether there are dropout and rematerialisation.
        """
        self.training = training
        memory, seen = self._encode(self.ids(text_ids, "memory"))
        x = self._embedded(self.ids(before_ids, "length"), "image")
        if self.config.image_positions == "learned":
            x += self._cast("image_positions/positions")
        else:
            x += self._grid(x.shape.dims[1])
        x = self._dropped(x, self.config.dropout_rate)
        for i in range(self.config.decoder_layers):
            block = functools.partial(self._decoder_block, i)
            x = self._run(block, x, memory, seen)
        x = self._norm(x, "decoder_norm")
        return self._logits(self._gathered(x))

    def loss(self, logits, image_ids):
        """Returns the mean cross-entropy in nats and how often an id is likeliest.

        Args:
            logits: float32 `(batch, positions, vocab)`.
            image_ids: int32 `(batch, num_tokens)`, a tensor of TensorFlow.
        """
        vocab = logits.shape.dims[-1]
        ids = self.ids(image_ids, "positions")
        chosen = mtf.einsum([mtf.one_hot(ids, vocab), logits], ids.shape)
        highest = mtf.reduce_max(mtf.stop_gradient(logits), reduced_dim=vocab)
        total = mtf.reduce_sum(mtf.exp(logits - highest), reduced_dim=vocab)
        right = mtf.cast(
            mtf.greater_equal(mtf.stop_gradient(chosen), highest), tf.float32
        )
        loss = mtf.reduce_mean(mtf.log(total) + highest - chosen)
        return loss, mtf.reduce_mean(right)

    def ids(self, ids, axis):
        """Lays ids `(batch, length)` of TensorFlow over the mesh."""
        length = mtf.Dimension(axis, int(ids.shape[1]))
        return mtf.import_tf_tensor(self.mesh, ids, mtf.Shape([self.batch, length]))

    def _encode(self, ids):
        x = self._embedded(ids, "text") + self._cast("text_positions/positions")
        x = self._dropped(x, self.config.dropout_rate)
        # An integer, because Mesh-TensorFlow wants a gradient of every float that a
        # rematerialised block reads.
        seen = mtf.cast(mtf.not_equal(ids, PAD), tf.int32)
        seen = mtf.rename_dimension(seen, "memory", "keys")
        for i in range(self.config.encoder_layers):
            x = self._run(functools.partial(self._encoder_block, i), x, seen)
        return _as_keys(self._gathered(self._norm(x, "encoder_norm"))), seen

    def _run(self, block, x, *others):
        if not (self.training and self.rematerialise):
            return block(x, *others)
        floats = [t for t in others if t.dtype.is_floating]
        rest = [t for t in others if not t.dtype.is_floating]
        return mtf.recompute_grad(lambda *tensors: block(*tensors, *rest), [x, *floats])

    def _encoder_block(self, layer, x, seen):
        scope = f"encoder/{layer}"
        y = self._gathered(self._norm(x, f"{scope}/attention_norm"))
        x = self._attend(x, y, _as_keys(y), f"{scope}/attention", seen)
        return self._feed_forward(x, scope)

    def _decoder_block(self, layer, x, memory, seen):
        scope = f"decoder/{layer}"
        y = self._gathered(self._norm(x, f"{scope}/attention_norm"))
        kernel = self.config.kernel_of(layer)
        x = self._attend(x, y, _as_keys(y), f"{scope}/attention", None, kernel)
        y = self._gathered(self._norm(x, f"{scope}/cross_attention_norm"))
        x = self._attend(x, y, memory, f"{scope}/cross_attention", seen)
        return self._feed_forward(x, scope)

    def _attend(self, x, queries, memory, scope, seen, kernel=None):
        """Adds attention to x: over what `seen` shows, or causal where it is None."""
        q = self._heads(queries, f"{scope}/query")
        q *= self.kv.size**-0.5
        k = self._heads(memory, f"{scope}/key")
        v = self._heads(memory, f"{scope}/value")
        if seen is None:
            y = self._causal(q, k, v, kernel)
        else:
            y = self._weigh(q, k, v, seen)
        y = mtf.einsum(
            [y, self._cast(f"{scope}/output_projection/kernel")],
            mtf.Shape([self.batch, y.shape.dims[2], self.embed]),
        )
        y = self._spread(y, x.shape) + self._cast(f"{scope}/output_projection/bias")
        return x + self._dropped(y, self.config.dropout_rate)

    def _heads(self, x, scope):
        """Returns `(batch, heads, …, kv)`, a projection of `(batch, …, embed)`."""
        shape = mtf.Shape([self.batch, self.heads, x.shape.dims[1], self.kv])
        y = mtf.einsum([x, self._cast(f"{scope}/kernel")], shape)
        return mtf.add(y, self._cast(f"{scope}/bias"), output_shape=shape)

    def _causal(self, q, k, v, kernel):
        """Attention to the ids before, or to those in a window of them.

        As in `layers.WindowAttention`, a block of queries sees a slab of keys: its own
        and as many blocks before as the window reaches. All blocks are one tensor, so
        that the graph does not grow with them.
        """
        length, width = q.shape.dims[2].size, self.config.width
        block, above = length, 0
        if kernel is not None:
            block = attention_block(width, length)
            above = -(-(window_length(kernel, width) - 1) // block)
        if block == length:
            seen = _causal_mask(length, kernel, width, self.config.attention_wraparound)
            return self._weigh(q, k, v, self._constant(seen, ("positions", "keys")))
        count = length // block
        q = self._cut(q, "positions", count, block)
        k, v = (self._slabs(x, count, block, above) for x in (k, v))
        places = np.arange((above + count) * block) - above * block
        keys = np.stack(
            [places[i * block :][: (above + 1) * block] for i in range(count)]
        )
        queries = np.arange(length).reshape(count, block)
        seen = np.stack(
            [
                (k >= 0)
                & mask_between(q, k, kernel, width, self.config.attention_wraparound)
                for q, k in zip(queries, keys, strict=True)
            ]
        )
        seen = self._constant(seen, ("blocks", "positions", "keys"))
        y = self._weigh(q, k, v, seen)
        whole = mtf.Dimension("positions", length)
        return mtf.reshape(y, mtf.Shape([self.batch, self.heads, whole, self.kv]))

    def _cut(self, x, name, count, block):
        """Cuts the places of `(batch, heads, places, kv)` into blocks."""
        blocks = [mtf.Dimension("blocks", count), mtf.Dimension(name, block)]
        return mtf.reshape(x, mtf.Shape([self.batch, self.heads, *blocks, self.kv]))

    def _slabs(self, x, count, block, above):
        """Gives each block of keys those of the `above` blocks before it."""
        x = mtf.pad(x, [above * block, 0], "keys")
        x = self._cut(x, "keys", above + count, block)
        pieces = [mtf.slice(x, i, count, "blocks") for i in range(above + 1)]
        return mtf.concat(pieces, "keys")

    def _weigh(self, q, k, v, seen):
        """Equation 1 of the Transformer, for queries that are scaled already."""
        keys = k.shape.dims[-2]
        logits = mtf.einsum([q, k], mtf.Shape([*q.shape.dims[:-1], keys]))
        bias = (1.0 - mtf.cast(seen, tf.float32)) * MASKED
        logits = mtf.add(mtf.cast(logits, tf.float32), bias, output_shape=logits.shape)
        weights = mtf.cast(softmax(logits, keys), self.dtype)
        weights = self._dropped(weights, self._rate("attention_dropout_rate"))
        return mtf.einsum([weights, v], q.shape)

    def _feed_forward(self, x, scope):
        y = self._gathered(self._norm(x, f"{scope}/feed_forward_norm"))
        scope = f"{scope}/feed_forward"
        wide, narrow = (self._cast(f"{scope}/{n}/kernel") for n in ("wide", "narrow"))
        places = y.shape.dims[1]
        y = mtf.einsum([y, wide], mtf.Shape([self.batch, places, wide.shape.dims[1]]))
        y = mtf.relu(y + self._cast(f"{scope}/wide/bias"))
        y = self._dropped(y, self._rate("activation_dropout_rate"))
        y = mtf.einsum([y, narrow], mtf.Shape([self.batch, places, self.embed]))
        y = self._spread(y, x.shape) + self._cast(f"{scope}/narrow/bias")
        return x + self._dropped(y, self.config.dropout_rate)

    def _norm(self, x, scope):
        y = mtf.cast(x, tf.float32)
        y -= mtf.reduce_mean(y, reduced_dim=self.embed)
        variance = mtf.reduce_mean(mtf.square(y), reduced_dim=self.embed)
        y *= mtf.rsqrt(variance + LAYER_NORM_EPSILON)
        y = y * self.weights[f"{scope}/gamma"] + self.weights[f"{scope}/beta"]
        return mtf.cast(y, self.dtype)

    def _embedded(self, ids, name):
        table = self._cast(f"{name}_embedding/embeddings")
        return mtf.gather(table, ids, table.shape.dims[0])

    def _grid(self, length):
        """Vectors of rows plus vectors of columns, `(length, embed)`."""
        rows, columns = (
            self._cast(f"image_positions/{n}")
            for n in ("row_vectors", "column_vectors")
        )
        both = [rows.shape.dims[0], columns.shape.dims[0], self.embed]
        grid = mtf.add(rows, columns, output_shape=mtf.Shape(both))
        return mtf.reshape(grid, mtf.Shape([length, self.embed]))

    def _logits(self, x):
        bias = self.weights["logits/bias"]
        tied = self.config.tie_embeddings
        kernel = self.weights["image_embedding/embeddings" if tied else "logits/kernel"]
        (vocab,) = (d for d in kernel.shape.dims if d.name == "vocab")
        # As in Keras a product in float32, of which TPUs and GPUs round what goes in:
        # a product of bfloat16 would have logits that are wrong by 1 part in 256.
        x = mtf.cast(x, tf.float32)
        logits = mtf.einsum([x, kernel], mtf.Shape([*x.shape.dims[:-1], vocab]))
        logits += self._fitted(bias, vocab)
        if vocab.size > self.config.num_codes:
            # No id of an image: the row that begins one, and what was padded.
            outside = np.arange(vocab.size) >= self.config.num_codes
            outside = tf.constant(outside * MASKED, tf.float32)
            logits += mtf.import_tf_tensor(self.mesh, outside, mtf.Shape([vocab]))
        return logits

    def _fitted(self, bias, vocab):
        """Pads a bias to the axis of the logits, one id longer where they are tied."""
        missing = vocab.size - bias.shape.dims[0].size
        if not missing:
            return bias
        bias = mtf.rename_dimension(bias, "vocab", "codes")
        bias = mtf.pad(bias, [0, missing], "codes")
        return mtf.rename_dimension(bias, "codes", "vocab")

    def _gathered(self, x):
        """Renames the places of `(batch, …, embed)`, so that each device has all."""
        return mtf.rename_dimension(x, x.shape.dims[1].name, "positions")

    def _spread(self, x, shape):
        """Renames the places back; each device keeps its share."""
        return x if x.shape == shape else mtf.reshape(x, shape)

    def _cast(self, name):
        return mtf.cast(self.weights[name], self.dtype)

    def _constant(self, values, axes):
        dims = [mtf.Dimension(a, n) for a, n in zip(axes, values.shape, strict=True)]
        values = tf.constant(values.astype("int32"))
        return mtf.import_tf_tensor(self.mesh, values, mtf.Shape(dims))

    def _rate(self, name):
        rate = getattr(self.config, name)
        return self.config.dropout_rate if rate is None else rate

    def _dropped(self, x, rate):
        dropping = self.training and self.noise is not None and rate
        return self.noise.drop(x, rate) if dropping else x


def _as_keys(x):
    return mtf.rename_dimension(x, "positions", "keys")


def ids_before(image_ids, num_codes):
    """Returns what stands before each id of an image; `num_codes` before the first.

    Args:
        image_ids: int array `(batch, num_tokens)`.
        num_codes: int. Number of ids an image may have.
    """
    return np.pad(image_ids[:, :-1], [(0, 0), (1, 0)], constant_values=num_codes)


def softmax(logits, axis):
    """Softmax over an axis that is whole on each device, as one operation."""

    def gradient(operation, dy):
        y = operation.outputs[0]
        return [(dy - mtf.reduce_sum(dy * y, reduced_dim=axis)) * y]

    others = [d for d in logits.shape.dims if d != axis]
    return mtf.slicewise(
        functools.partial(tf.nn.softmax, axis=logits.shape.dims.index(axis)),
        [logits],
        splittable_dims=others,
        grad_function=gradient,
        name="softmax",
    )


def _causal_mask(length, kernel, width, wraparound):
    places = np.arange(length)
    if kernel is None:
        return places[None, :] <= places[:, None]
    return mask_between(places, places, kernel, width, wraparound)
