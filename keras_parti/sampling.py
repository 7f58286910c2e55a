"""From logits to ids: guidance, temperature, top-k, top-p, and the cached loop.

The noise of a picture is a hash of its seed, the position and the code: it does not
depend on the batch, on the order of execution or on the backend's generators.
"""

import keras
import numpy as np
from keras import ops

from keras_parti.layers.embeddings import empty_prompt

# Temperature and filters are not published for Parti: those of ViT-VQGAN, section
# 4.2, plain sampling. The guidance scale is that of Parti's table 5.
DEFAULTS = {"guidance_scale": 1.2, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

# Allowed values, both ends included. `top_k` has no upper end: more than all is all.
RANGES = {
    "guidance_scale": (0.0, 30.0),  # 1 is no guidance
    "temperature": (0.0, 10.0),  # 0 takes the likeliest id
    "top_k": (0, 2**31 - 1),  # 0 keeps all
    "top_p": (0.0, 1.0),  # 1 keeps all, 0 the likeliest
}


def check_options(**options):
    """Raises `ValueError` where an option is outside of `RANGES` or no number.

    Args:
        **options: names of `RANGES` with numbers or arrays.
    """
    for name, value in options.items():
        low, high = RANGES[name]
        values = np.asarray(value)
        if values.dtype.kind not in "iuf" or not np.all(
            (values >= low) & (values <= high)
        ):
            raise ValueError(
                f"`{name}` must be in [{low}, {high}]. Received: {name}={value!r}"
            )


def check_counts(num_samples, keep):
    """Raises `ValueError` unless 1 ≤ `keep` ≤ `num_samples`."""
    if not 1 <= keep <= num_samples:
        raise ValueError(
            "`num_samples` and `keep` must be 1 ≤ keep ≤ num_samples. "
            f"Received: num_samples={num_samples}, keep={keep}"
        )


def sample_seeds(seed, num_samples, num_prompts):
    """Returns int64 seeds `(num_prompts * num_samples,)`: seed + j for sample j.

    Args:
        seed: int of 64 bits; past the last one the seeds begin anew at the first.
        num_samples: int. Samples of a prompt, next to each other.
        num_prompts: int.

    Raises:
        ValueError: where the seed is no integer of 64 bits.
    """
    if not isinstance(seed, int | np.integer) or not -(2**63) <= seed < 2**63:
        raise ValueError(
            f"`seed` must be an integer in [-2**63, 2**63). Received: seed={seed!r}"
        )
    with np.errstate(over="ignore"):
        row = np.int64(seed) + np.arange(num_samples, dtype="int64")
    return np.tile(row, num_prompts)


def seed_words(seeds):
    """Splits 64-bit seeds into the two words that `generate_ids` takes.

    Args:
        seeds: int64 `(batch,)`, any values.

    Returns:
        uint32 NumPy array `(batch, 2)`, the low word first.
    """
    return np.asarray(seeds, "<i8").reshape(-1, 1).view("<u4")


def generate_ids(parti, text_ids, seeds, guidance_scale, temperature, top_k, top_p):
    """Samples the ids of images, position by position, with a key/value cache.

    Each row is computed twice, with its text and with the empty prompt.

    Args:
        parti: `Parti`.
        text_ids: int32 `(batch, text_length)`.
        seeds: uint32 `(batch, 2)`, from `seed_words`.
        guidance_scale: float32 `(batch,)`.
        temperature: float32 `(batch,)`.
        top_k: int32 `(batch,)`.
        top_p: float32 `(batch,)`.

    Returns:
        A dict of `ids`, int32 `(batch, num_tokens)`, and `score`, float32 `(batch,)`:
        the mean log-likelihood of the ids under the text, in nats a token, without
        guidance and at temperature 1.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.3
    """
    batch, length = ops.shape(text_ids)[0], parti.config.num_tokens
    no_text = ops.broadcast_to(empty_prompt(text_ids.shape[1]), ops.shape(text_ids))
    memory, memory_mask = parti.encode(ops.concatenate([text_ids, no_text]))
    memory_keys_values = parti.memory_keys_values(memory)
    positions = ops.arange(length, dtype="int32")

    def step(position, last, ids, score, cache):
        logits, cache = parti.step(
            last, position, cache, memory_keys_values, memory_mask
        )
        conditional, unconditional = ops.split(logits, 2)
        guided = guide(conditional, unconditional, guidance_scale)
        guided = filter_logits(guided, temperature, top_k, top_p)
        noise = gumbel(seeds, position, parti.config.num_codes)
        # argmax(logits / T + Gumbel) draws from softmax(logits / T); times T it is
        # also right at T = 0.
        new = ops.argmax(guided + temperature[:, None] * noise, axis=-1)
        new = ops.cast(new, "int32")[:, None]  # (batch, 1)
        likelihood = ops.log_softmax(conditional, axis=-1)
        score = score + ops.take_along_axis(likelihood, new, axis=-1)[:, 0]
        ids = ops.where(positions == position, new, ids)
        return position + 1, ops.concatenate([new, new]), ids, score, cache

    _, _, ids, score, _ = ops.while_loop(
        lambda position, *_: position < length,
        step,
        (
            ops.convert_to_tensor(0, "int32"),
            parti.begin(2 * batch),
            ops.zeros((batch, length), "int32"),
            ops.zeros((batch,), "float32"),
            parti.empty_cache(2 * batch),
        ),
        maximum_iterations=length,
    )
    return {"ids": ids, "score": score / length}


def guide(conditional, unconditional, scale):
    """Classifier-free guidance of logits: u + scale · (c − u).

    Args:
        conditional: float `(batch, num_codes)`, c.
        unconditional: float `(batch, num_codes)`, u.
        scale: float `(batch,)`; 1 gives c.
    """
    return unconditional + scale[:, None] * (conditional - unconditional)


def filter_logits(logits, temperature, top_k, top_p):
    """Sets to −1e9 the logits that top-k and top-p leave out.

    Top-k keeps the k largest; top-p then keeps the fewest of these, largest first,
    whose share of the probability at this temperature reaches p; at least one.

    Args:
        logits: float32 `(batch, num_codes)`.
        temperature: float32 `(batch,)`.
        top_k: int32 `(batch,)`; 0 keeps all.
        top_p: float32 `(batch,)`; 1 keeps all.

    Returns:
        float32 `(batch, num_codes)`.
    """

    def filtered():
        num_codes = logits.shape[-1]
        largest = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        k = ops.where(top_k > 0, ops.minimum(top_k, num_codes), num_codes)[:, None]
        kept = ops.where(ops.arange(num_codes, dtype="int32") < k, largest, -1e9)
        shares = ops.softmax(kept / ops.maximum(temperature, 1e-6)[:, None], axis=-1)
        # An id stays while those before it fall short of p; the first always does.
        before = ops.cumsum(shares, axis=-1) - shares
        count = ops.sum(ops.cast(before < top_p[:, None], "int32"), axis=-1)
        # Rounding lets a sum reach 1 early: p = 1 keeps all that top-k keeps.
        count = ops.where(top_p >= 1.0, num_codes, ops.maximum(count, 1))[:, None]
        least = ops.take_along_axis(largest, ops.minimum(count, k) - 1, axis=-1)
        return ops.where(logits >= least, logits, -1e9)

    # Sorting all codes costs more than the rest of a step: only where it is asked for.
    wanted = ops.any(ops.logical_or(top_k > 0, top_p < 1.0))
    return ops.cond(wanted, filtered, lambda: logits)


def gumbel(seeds, position, size):
    """Standard Gumbel noise, −ln(−ln u), of a position.

    Args:
        seeds: uint32 `(batch, 2)`.
        position: int32 scalar.
        size: int. Number of codes.

    Returns:
        float32 `(batch, size)`; a row depends on its own seed and the position alone.
    """
    key = _mix(ops.cast(position, "uint32"))
    key = _mix(ops.bitwise_xor(seeds[:, 0], key))
    key = _mix(ops.bitwise_xor(seeds[:, 1], key))  # (batch,)
    # The golden ratio's 32 bits: consecutive codes land far apart.
    columns = np.arange(size, dtype="uint32") * np.uint32(0x9E3779B9)
    bits = _mix(_mix(ops.bitwise_xor(key[:, None], columns)) + key[:, None])
    # 23 bits and a half: never 0 and never 1 in float32.
    uniform = ops.cast(ops.right_shift(bits, _word(9)), "float32")
    uniform = (uniform + 0.5) * 2.0**-23
    return -ops.log(-ops.log(uniform))


def _mix(x):
    """A bijection of 32-bit words in which each bit of x flips half of the others.

    The shape is MurmurHash3's finaliser; the multipliers are those with the lowest
    known bias, published by C. Wellons (hash-prospector).
    """
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(16)))
    x = x * _word(0x7FEB352D)
    x = ops.bitwise_xor(x, ops.right_shift(x, _word(15)))
    x = x * _word(0x846CA68B)
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))


def _word(value):
    return ops.convert_to_tensor(np.uint32(value))


def compiled(function, model):
    """Compiles a function that reads a model's weights, on the backend in use.

    Args:
        function: function of tensors, batch first, that returns a dict of tensors.
        model: `keras.Model` whose weights it reads.

    Returns:
        A function of NumPy arrays that returns a dict of NumPy arrays. On TensorFlow
        one graph serves all batch sizes; JAX compiles once for each.
    """
    variables = model.variables

    def pure(values, arguments):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arguments)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(
            lambda arguments: function(*arguments),
            autograph=False,
            reduce_retracing=True,
        )

        def run(arguments):
            return graph(tuple(map(tf.convert_to_tensor, arguments)))
    elif keras.backend.backend() == "jax":
        import jax

        graph = jax.jit(pure)

        def run(arguments):
            return graph([v.value for v in variables], arguments)
    else:

        def run(arguments):
            return pure([v.value for v in variables], arguments)

    def call(*arguments):
        outputs = run(arguments)
        return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}

    return call
