"""Attention of some heads at a time, whose weights nobody keeps: for processors."""

from keras import ops

from keras_parti.layers.processors import on_processor

# Logits of a part, about: 4 MB in float32, which stay in a core's cache. Forward and
# backward on two cores, 4 rows of 8 heads of 1,024 queries and keys in bfloat16, take
# 87 ms in parts of one head and 116 ms at once.
PART = 2**20


def in_parts(heads, length, memory):
    """Whether logits of `heads * length * memory` a row are better taken in parts.

    Accelerators take them at once; what is small stays in the cache anyway.
    """
    if length is None or memory is None or heads * length * memory <= PART:
        return False
    return on_processor()


def attend_in_parts(queries, keys, values, bias=None):
    """Scaled dot-product attention, part by part, in either direction.

    The backward pass computes the weights again, as FlashAttention does
    (arXiv:2205.14135, section 3.1), so that memory grows with the length and not with
    its square.

    Args:
        queries: float `(batch, heads, length, kv)`, scaled already.
        keys: float `(batch, heads, memory, kv)`.
        values: float `(batch, heads, memory, kv)`.
        bias: float32, broadcast to `(batch, heads, length, memory)`, or None. No
            gradient flows to it.

    Returns:
        float `(batch, heads, length, kv)`.
    """
    _, heads, length, _ = queries.shape
    memory = keys.shape[2]
    dtype = queries.dtype
    fit = max(1, PART // (length * memory))
    at_a_time = max(n for n in range(1, heads + 1) if heads % n == 0 and n <= fit)

    def split(x):
        return ops.reshape(x, (-1, at_a_time, *x.shape[2:]))

    def join(x):
        return ops.reshape(x, (-1, heads, *x.shape[2:]))

    biases = ()
    # One of all rows and heads, as that of a causal mask, every part sees whole.
    shared = bias is not None and len(bias.shape) == 2
    if bias is not None and not shared:
        rows = ops.shape(queries)[0]
        biases = (split(ops.broadcast_to(bias, (rows, heads, *bias.shape[-2:]))),)

    def weigh(queries, keys, own=None):
        logits = ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))
        if bias is None:
            # oneDNN's kernel computes in float32 and rounds what it returns, as two
            # casts around it would: 26 ms in place of 39, of 32 heads of 1,024 queries
            # and keys in bfloat16, with the same error.
            return ops.softmax(logits, axis=-1)  # (at_a_time, length, memory)
        logits = ops.cast(logits, "float32") + (bias if shared else own)
        return ops.cast(ops.softmax(logits, axis=-1), dtype)

    @ops.custom_gradient
    def attend(queries, keys, values):
        def forward(part):
            queries, keys, values, *own = part
            return ops.matmul(weigh(queries, keys, *own), values)

        def backward(part):
            queries, keys, values, slopes, mean, *own = part
            weights = weigh(queries, keys, *own)
            of_weights = ops.matmul(slopes, ops.transpose(values, (0, 2, 1)))
            of_logits = weights * (of_weights - mean)
            return (
                ops.matmul(of_logits, keys),
                ops.matmul(ops.transpose(of_logits, (0, 2, 1)), queries),
                ops.matmul(ops.transpose(weights, (0, 2, 1)), slopes),
            )

        outputs = ops.map(forward, (queries, keys, values, *biases))

        def grad(upstream):
            slopes = split(upstream)
            # The mean of a query's slopes, each by its weight, from what it returned:
            # appendix B of FlashAttention.
            products = ops.cast(slopes, "float32") * ops.cast(outputs, "float32")
            mean = ops.cast(ops.sum(products, axis=-1, keepdims=True), dtype)
            inputs = (queries, keys, values, slopes, mean, *biases)
            return ops.map(backward, inputs)

        return join(outputs), grad

    return attend(*(split(x) for x in (queries, keys, values)))
