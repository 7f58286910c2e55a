"""From logits to ids: guidance, temperature, top-k, top-p, and the loop over positions.

The noise of a picture is a hash of its seed, the position and the code: it does not
depend on the batch, on the order of execution or on the backend's generators.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_parti.decoding import CachedDecoder
from keras_parti.layers.logits import largest
from keras_parti.typing import Tensor

__all__ = [
    "advance",
    "begin",
    "filter_logits",
    "generate_ids",
    "guidance_schedule",
    "guide",
    "gumbel",
    "sample_seeds",
    "seed_words",
]

# Temperature and filters are not published for Parti: those of ViT-VQGAN, section
# 4.1, plain sampling. The guidance scale is that of Parti's table 5.
DEFAULTS: dict[str, Any] = {
    "guidance_scale": 1.2,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}

# Allowed values, both ends included. `top_k` has no upper end: more than all is all.
RANGES = {
    "guidance_scale": (0.0, 30.0),  # 1 is no guidance
    "temperature": (0.0, 10.0),  # 0 takes the likeliest id
    "top_k": (0, 2**31 - 1),  # 0 keeps all
    "top_p": (0.0, 1.0),  # 1 keeps all, 0 the likeliest
}


def check_options(**options):
    """Raises `ValueError` where an option is outside of `RANGES` or no number.

    `TypeError` where there is no such option.

    Args:
        **options: names of `RANGES` with numbers or arrays.
    """
    for name, value in options.items():
        if name not in RANGES:
            raise TypeError(
                f"Options of sampling are {', '.join(RANGES)}. Received: {name}"
            )
        low, high = RANGES[name]
        values = np.asarray(value)
        if values.dtype.kind not in "iuf" or not np.all(
            (values >= low) & (values <= high)
        ):
            raise ValueError(
                f"`{name}` must be in [{low}, {high}]. Received: {name}={value!r}"
            )


# Pictures drawn for a prompt, and how many of them are shown: as the paper does.
NUM_SAMPLES = 16
KEEP = 4


def check_counts(num_samples, keep=None):
    """Returns how many of several pictures are kept: `keep`, or 4 if it is None.

    Raises:
        ValueError: not 1 ≤ `keep` ≤ `num_samples`.
    """
    if keep is None:
        keep = max(1, min(KEEP, num_samples))
    if not 1 <= keep <= num_samples:
        raise ValueError(
            "`num_samples` and `keep` must be 1 ≤ keep ≤ num_samples. "
            f"Received: num_samples={num_samples}, keep={keep}"
        )
    return keep


def check_likelihood(score):
    """Raises `ValueError` where the score of `generate_ids` is not finite."""
    if not np.isfinite(score).all():
        raise ValueError(
            "The likelihood of a picture must be finite: the model has weights that "
            f"are not, or that overflow. Received: score={np.asarray(score).tolist()}"
        )


def sample_seeds(seed: int, num_samples: int, num_prompts: int) -> np.ndarray:
    """Returns int64 seeds `(num_prompts * num_samples,)`: seed + j for sample j.

    Args:
        seed: int of 64 bits; past the last one the seeds begin anew at the first.
        num_samples: int. Samples of a prompt, next to each other.
        num_prompts: int.

    Raises:
        ValueError: where the seed is no integer of 64 bits.

    Example:
        >>> sample_seeds(7, num_samples=3, num_prompts=2).tolist()
        [7, 8, 9, 7, 8, 9]
    """
    if not isinstance(seed, int | np.integer) or not -(2**63) <= seed < 2**63:
        raise ValueError(
            f"`seed` must be an integer in [-2**63, 2**63). Received: seed={seed!r}"
        )
    with np.errstate(over="ignore"):
        row = np.int64(seed) + np.arange(num_samples, dtype="int64")
    return np.tile(row, num_prompts)


def seed_words(seeds: Sequence[int] | np.ndarray) -> np.ndarray:
    """Splits 64-bit seeds into the two words that `generate_ids` takes.

    Args:
        seeds: int64 `(batch,)`, any values.

    Returns:
        uint32 NumPy array `(batch, 2)`, the low word first.

    Example:
        >>> seed_words([3, 2**32 + 5]).tolist()
        [[3, 0], [5, 1]]
    """
    return np.asarray(seeds, "<i8").reshape(-1, 1).view("<u4")


def guidance_schedule(
    first: float, last: float, length: int, shape: str = "linear"
) -> np.ndarray:
    """Guidance scales that change over a picture, for `guidance_scale`.

    The first ids lay out the picture and the last ones only finish it. Parti's scale is
    constant; the schedules are not published.

    Args:
        first: float. The scale of the first position.
        last: float. The scale of the last position.
        length: int. Positions of a picture.
        shape: str. "linear", or "cosine" for half a wave, level at both ends.

    Returns:
        float32 NumPy array `(length,)`.

    Raises:
        ValueError: where there is no such shape.

    Example:
        >>> guidance_schedule(1.0, 3.0, length=5).tolist()
        [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    share = np.linspace(0.0, 1.0, length)
    if shape == "cosine":
        share = (1 - np.cos(np.pi * share)) / 2
    elif shape != "linear":
        raise ValueError(
            f"`shape` must be 'linear' or 'cosine'. Received: shape={shape!r}"
        )
    return (first + (last - first) * share).astype("float32")


def generate_ids(
    model: keras.Model,
    condition_ids: Tensor,
    seeds: Tensor,
    guidance_scale: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    given: Tensor | None = None,
    count: int | Tensor = 0,
    guided: bool | Tensor = True,
) -> dict[str, Tensor]:
    """Samples the ids of images, position by position, with a key/value cache.

    Args:
        model: `Parti`, or another that `keras_parti.decoding` describes.
        condition_ids: int32 `(prompts, ...)`, what the model's `condition` takes: for
            Parti text ids, `(prompts, text_length)`. Each is encoded once.
        seeds: uint32 `(rows, 2)`, from `seed_words`: as many rows for each prompt,
            next to each other.
        guidance_scale: float32 `(rows,)`, or `(rows, num_tokens)`, one a position.
        temperature: float32 `(rows,)`.
        top_k: int32 `(rows,)`.
        top_p: float32 `(rows,)`.
        given: int32 `(prompts, num_tokens)`, ids to go on from, or None.
        count: int32 scalar in `[0, num_tokens)`. How many of `given` are kept.
        guided: bool, or on TensorFlow an int32 tensor of 0 or 1. 0 leaves out what is
            computed without the condition, which all scales of 1 make useless.

    Returns:
        A dict of `ids`, int32 `(rows, num_tokens)`, and `score`, float32 `(rows,)`:
        the mean log-likelihood of the sampled ids under the text, in nats a token,
        without guidance and at temperature 1.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.4
    """
    options = (seeds, guidance_scale, temperature, top_k, top_p)
    tensors, state = begin(model, condition_ids, seeds, given, count, guided)
    length = model.config.num_tokens
    state = advance(model, tensors, state, options, length)
    sampled = ops.cast(length - count, "float32")
    return {"ids": state["ids"], "score": state["score"] / sampled}


def begin(
    model: keras.Model,
    condition_ids: Tensor,
    seeds: Tensor,
    given: Tensor | None = None,
    count: int | Tensor = 0,
    guided: bool | Tensor = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prepares the sampling of images, of which no id is sampled yet.

    Args:
        model: as `generate_ids` takes it, like all that follow.
        condition_ids: int32 `(prompts, ...)`.
        seeds: uint32 `(rows, 2)`.
        given: int32 `(prompts, num_tokens)`, or None.
        count: int32 scalar in `[0, num_tokens)`.
        guided: bool, or int32 tensor of 0 or 1.

    Returns:
        Two nests of tensors: what every step reads, and the state that steps change.
    """
    prompts, rows = ops.shape(condition_ids)[0], ops.shape(seeds)[0]
    samples = rows // prompts
    groups = prompts * (1 + guided)
    decoder, length = CachedDecoder(model), model.config.num_tokens
    weights = decoder.pack()
    # One more row is encoded, of no condition, and all groups that have none share it,
    # its keys and values included.
    ids = ops.concatenate([condition_ids, model.no_condition()])
    which = ops.minimum(ops.arange(groups, dtype="int32"), prompts)
    condition = model.condition(ids)
    condition, memories = keras.tree.map_structure(
        lambda x: None if x is None else ops.take(x, which, axis=0),
        (condition, decoder.remember(condition)),
    )
    count = ops.convert_to_tensor(count, "int32")
    inputs = ops.cast(condition["begin"], model.compute_dtype)
    if given is None:
        ids = ops.zeros((rows, length), "int32")
        cache = decoder.empty_cache(groups * samples)
    else:
        kept = ops.where(ops.arange(length, dtype="int32") < count, given, 0)
        ids = ops.repeat(kept, samples, axis=0)
        kept = ops.take(kept, ops.arange(groups, dtype="int32") % prompts, axis=0)
        cache = decoder.fill(condition, kept, count, samples)
        last = ops.take(kept, ops.maximum(count - 1, 0), axis=1)
        last = ops.take(weights["embeddings"], last, axis=0)
        inputs = ops.where(count > 0, last, inputs)
    state = {
        "position": count,
        "inputs": ops.repeat(inputs, samples, axis=0),
        "ids": ids,
        "score": ops.zeros((rows,), "float32"),
        "cache": cache,
    }
    return {"weights": weights, "memories": memories}, state


def advance(
    model: keras.Model,
    tensors: dict[str, Any],
    state: dict[str, Any],
    options: tuple[Tensor, ...],
    stop: int | Tensor,
) -> dict[str, Any]:
    """Samples the ids of the positions up to `stop`.

    Args:
        model: as `generate_ids` takes it.
        tensors: what `begin` returned first.
        state: what `begin` returned second, or the `advance` before.
        options: tuple of `seeds` to `top_p`, as `generate_ids` takes them.
        stop: int or int32 scalar. The first position not to sample.

    Returns:
        The new state. Its `score` is a sum over positions.
    """
    decoder, config = CachedDecoder(model), model.config
    seeds, guidance_scale, temperature, top_k, top_p = options
    positions = ops.arange(config.num_tokens, dtype="int32")
    rows = ops.shape(seeds)[0]

    def step(state):
        position = state["position"]
        logits, cache = decoder.step(
            tensors["weights"],
            tensors["memories"],
            state["inputs"],
            position,
            state["cache"],
        )
        # Where nothing is guided, the last rows are the first ones.
        conditional, unconditional = logits[:rows], logits[-rows:]
        scale = guidance_scale
        if len(scale.shape) == 2:
            scale = ops.take(scale, position, axis=1)
        guided = guide(conditional, unconditional, scale)
        guided = filter_logits(guided, temperature, top_k, top_p)
        noise = gumbel(seeds, position, config.num_codes)
        # argmax(logits / T + Gumbel) draws from softmax(logits / T); times T it is
        # also right at T = 0.
        new = largest(guided + temperature[:, None] * noise)[:, None]  # (rows, 1)
        chosen = ops.take_along_axis(conditional, new, axis=-1)[:, 0]
        surprise = ops.logsumexp(conditional, axis=-1) - chosen
        inputs = ops.take(tensors["weights"]["embeddings"], new[:, 0], axis=0)
        copies = ops.shape(logits)[0] // rows  # 2 where there is guidance
        copied = ops.tile(inputs, (copies, 1))
        return {
            "position": position + 1,
            # Keras 3.12 forgets the width where only the graph knows how many.
            "inputs": ops.reshape(copied, (-1, inputs.shape[-1])),
            "ids": ops.where(positions == position, new, state["ids"]),
            "score": state["score"] - surprise,
            "cache": cache,
        }

    (state,) = ops.while_loop(
        lambda state: state["position"] < stop,
        lambda state: (step(state),),
        (state,),
    )
    return state


def guide(conditional: Tensor, unconditional: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance of logits, equation 1 of Parti: u + scale · (c − u).

    Args:
        conditional: float `(batch, num_codes)`, c.
        unconditional: float `(batch, num_codes)`, u.
        scale: float `(batch,)`; 1 gives c.

    Example:
        >>> c, u = np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]])
        >>> ops.convert_to_numpy(guide(c, u, scale=np.array([3.0]))).tolist()
        [[4.0, -2.0]]
    """
    # In this order a scale of 1 gives c to the last bit: u + (c − u) would be rounded,
    # and rows without guidance other pictures beside guided ones than alone.
    return conditional + (scale[:, None] - 1.0) * (conditional - unconditional)


def filter_logits(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor
) -> Tensor:
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

    Example:
        >>> logits = np.array([[1.0, 4.0, 3.0, 2.0]], "float32")
        >>> one, two = np.ones(1, "float32"), np.array([2], "int32")
        >>> kept = filter_logits(logits, temperature=one, top_k=two, top_p=one)
        >>> (ops.convert_to_numpy(kept) > -1e9).tolist()
        [[False, True, True, False]]
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


def gumbel(seeds: Tensor, position: int | Tensor, size: int) -> Tensor:
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
