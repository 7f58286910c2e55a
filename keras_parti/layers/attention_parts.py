"""Attention of some heads at a time, whose weights nobody keeps: for processors."""

from keras import ops

from keras_parti.layers.processors import on_processor

# Logits of a part, about: 4 MB in float32, which stay in a core's cache. Forward and
# backward on two cores, 4 rows of 8 heads of 1,024 queries and keys in bfloat16, take
# 204 ms in parts of one head and 527 ms at once.
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
        # float32, since bfloat16 keeps 8 significant bits of a logit.
        logits = ops.cast(logits, "float32")
        if bias is not None:
            logits = logits + (bias if shared else own)
        return ops.softmax(logits, axis=-1)  # (at_a_time, length, memory)

    def weigh_once(queries, keys, *own):
        if bias is not None:
            return ops.cast(weigh(queries, keys, *own), dtype)
        # oneDNN's kernel computes in float32 and rounds what it returns, as two casts
        # around it would: 26 ms in place of 39, of 32 heads of 1,024 queries and keys,
        # with the same error.
        return ops.softmax(ops.matmul(queries, ops.transpose(keys, (0, 2, 1))), axis=-1)

    @ops.custom_gradient
    def attend(queries, keys, values):
        def forward(part):
            queries, keys, values, *own = part
            return ops.matmul(weigh_once(queries, keys, *own), values)

        def backward(part):
            queries, keys, values, slopes, *own = part
            weights = weigh(queries, keys, *own)
            slopes_of_weights = ops.matmul(slopes, ops.transpose(values, (0, 2, 1)))
            slopes_of_weights = ops.cast(slopes_of_weights, "float32")
            mean = ops.sum(weights * slopes_of_weights, axis=-1, keepdims=True)
            of_logits = ops.cast(weights * (slopes_of_weights - mean), dtype)
            weights = ops.cast(weights, dtype)
            return (
                ops.matmul(of_logits, keys),
                ops.matmul(ops.transpose(of_logits, (0, 2, 1)), queries),
                ops.matmul(ops.transpose(weights, (0, 2, 1)), slopes),
            )

        def grad(upstream):
            inputs = (queries, keys, values, split(upstream), *biases)
            return ops.map(backward, inputs)

        return join(ops.map(forward, (queries, keys, values, *biases))), grad

    return attend(*(split(x) for x in (queries, keys, values)))
