"""What one step of Parti on a mesh multiplies, keeps and sends, by named axes.

A list of the matrix products of `mesh.parti`, each with its axes, is enough to derive
the floating-point operations of a device, its collectives, and what the backward pass
needs kept.
"""

import dataclasses
import math

from keras_parti.layers.window import window_length
from keras_parti.layers.window_attention import BLOCK


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of two tensors, summed over the axes that the result lacks.

    Attributes:
        left: dict from axis to size. An activation.
        right: dict from axis to size. A weight or an activation.
        result: tuple of axes.
        count: int. How often the step has it, without its gradients.
        joined: bool. Whether the gradient of `left` is summed with that of the product
            before, and only the sum is sent: query, key and value read one tensor.
    """

    left: dict
    right: dict
    result: tuple
    count: int = 1
    joined: bool = False

    @property
    def sizes(self):
        """All axes of the product."""
        return self.left | self.right

    @property
    def passes(self):
        """Pairs of the axes of an operand's gradient and whether it is sent."""
        return ((tuple(self.left), not self.joined), (tuple(self.right), True))


def attention_block(width, length):
    """Returns the queries of a block: whole rows, at most `BLOCK` where that can be."""
    rows = length // width
    fitting = [n for n in range(1, rows + 1) if rows % n == 0 and n * width <= BLOCK]
    return width * max(fitting, default=1)


def keys_seen(config, kernel):
    """Returns how many keys are computed for each query of a decoder layer."""
    if kernel is None:
        return config.num_tokens
    block = attention_block(config.width, config.num_tokens)
    above = -(-(window_length(kernel, config.width) - 1) // block)
    return config.num_tokens if block == config.num_tokens else (above + 1) * block


def products_of(config, batch_size):
    """Returns the matrix products of a forward pass, a list of `Product`."""
    batch, embed = {"batch": batch_size}, {"embed": config.dim}
    length, memory = {"places": config.num_tokens}, {"places": config.text_length}
    codes = {"vocab": config.num_codes + 1}
    found = []
    for places, vocab in ((memory, {"vocab": config.text_vocab_size}), (length, codes)):
        table = Product(
            batch | places | vocab, vocab | embed, _axes(batch, places, embed)
        )
        found.append(table)
    encoder = config.encoder_layers
    found += _attention(config, batch, memory, memory, config.text_length, encoder)
    found += _feed_forward(config, batch, memory, encoder)
    decoder = config.decoder_layers
    for layer in range(decoder):
        keys = keys_seen(config, config.kernel_of(layer))
        found += _attention(config, batch, length, length, keys, 1)
    found += _attention(config, batch, length, memory, config.text_length, decoder)
    found += _feed_forward(config, batch, length, decoder)
    codes = codes if config.tie_embeddings else {"vocab": config.num_codes}
    x = batch | length | embed
    return [*found, Product(x, embed | codes, _axes(batch, length, codes))]


def _attention(config, batch, queries, memory, keys, count):
    embed, itself = {"embed": config.dim}, queries is memory
    heads = {"heads": config.heads, "kv": config.dim // config.heads}
    q = batch | queries | heads
    seen = {"batch": batch["batch"], "heads": heads["heads"], **queries, "keys": keys}
    k = {"batch": batch["batch"], "keys": keys, **heads}
    found = [
        Product(batch | places | embed, embed | heads, _axes(batch, places, heads),
                count, joined=joined)
        for places, joined in ((queries, False), (memory, itself), (memory, True))
    ]  # fmt: skip
    return [
        *found,
        Product(q, k, tuple(seen), count),
        Product(seen, k, tuple(q), count),
        Product(q, heads | embed, _axes(batch, queries, embed), count),
    ]


def _feed_forward(config, batch, places, count):
    embed, mlp = {"embed": config.dim}, {"mlp": config.mlp_dim}
    x, y = batch | places | embed, batch | places | mlp
    return [
        Product(x, embed | mlp, tuple(y), count),
        Product(y, mlp | embed, tuple(x), count),
    ]


def _axes(*parts):
    return tuple(axis for part in parts for axis in part)


def floats(layout, sizes):
    """Returns the number of elements on one device of a tensor of these axes."""
    return math.prod(layout.slice_shape(tuple(sizes), tuple(sizes.values())))
