"""Random crops of pictures as DALL-E published them, and Parti and ViT-VQGAN took over.

Two listings: one for pictures that a tokenizer learns from, one for those that a
Transformer is shown as ids. Parti, section 4.1, names them as its input processing;
what ViT-VQGAN's first stage used is not published. Each is a pure function of the
picture and a seed, so that an interrupted run goes on with the pictures it would have
seen.

A departure: pictures smaller than the result, on which the listings fail, are enlarged
to it first.

References:
    - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), listings 1 and 2
    - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 4.1
"""

import tensorflow as tf


def tokenizer_crop(image, size, seed):
    """Listing 1: crops a picture at random, for training a tokenizer.

    A random square of the full shorter side s, resized by areas to a random side of
    [min(s, 9/8 · size), min(s, 12/8 · size)], both ends included; of that a random
    square of `size`; mirrored in half of the cases.

    Args:
        image: float `(height, width, 3)` in [0, 1], any size.
        size: int. Side of the result in pixels; 256 in the papers.
        seed: int `(2,)`. Equal seeds give equal crops.

    Returns:
        float32 `(size, size, 3)` in [0, 1], in steps of 1/255.
    """
    seeds = _split(seed, 4)
    image, shorter = _enlarged(image, size)
    # Python's round of an exact half goes to the even side, as in the listing.
    smallest = tf.minimum(shorter, round(9 / 8 * size))
    largest = tf.minimum(shorter, round(12 / 8 * size))
    square = tf.image.stateless_random_crop(image, (shorter, shorter, 3), seeds[0])
    side = _uniform(smallest, largest + 1, seeds[1])
    crop = _random_crop(_resize_by_area(square, side), size, seeds[2])
    return tf.image.stateless_random_flip_left_right(crop, seeds[3])


def transformer_crop(image, size, seed):
    """Listing 2: crops a picture near its centre, for training a Transformer.

    A square of the full shorter side s, its offset from 3/8 to 5/8 of the slack,
    resized by areas to a random side of [size, min(s, 9/8 · size)]; of that a random
    square of `size`. Never mirrored, since there may be text in the picture.

    Args:
        image: float `(height, width, 3)` in [0, 1], any size.
        size: int. Side of the result in pixels; 256 in the papers.
        seed: int `(2,)`. Equal seeds give equal crops.

    Returns:
        float32 `(size, size, 3)` in [0, 1], in steps of 1/255.
    """
    seeds = _split(seed, 4)
    image, shorter = _enlarged(image, size)
    top, left = (
        _near_centre(tf.shape(image)[axis] - shorter, seeds[axis]) for axis in (0, 1)
    )
    square = image[top : top + shorter, left : left + shorter]
    largest = tf.minimum(shorter, round(9 / 8 * size))
    side = _uniform(size, largest + 1, seeds[2])
    return _random_crop(_resize_by_area(square, side), size, seeds[3])


def recolored_crop(image, size, seed):
    """Listing 1, then other colours: for a tokenizer of which the pictures are few.

    Not in the papers. Our 32 training photographs have hardly a cyan; held-out cups of
    that colour came back blue. Half of the crops have their channels in another order;
    all have a random saturation, gain of each channel and brightness. See `recolor`.

    Args:
        image: float `(height, width, 3)` in [0, 1], any size.
        size: int. Side of the result in pixels.
        seed: int `(2,)`. Equal seeds give equal crops.

    Returns:
        float32 `(size, size, 3)` in [0, 1].
    """
    seeds = _split(seed, 2)
    return recolor(tokenizer_crop(image, size, seeds[0]), seeds[1])


def recolor(image, seed):
    """Changes the colours of a picture at random, all its pixels alike.

    In half of the cases the three channels in a random order; then the distance of each
    channel from the pixel's mean times a random saturation of [0.3, 1.5], the channels
    times a gain each of [0.8, 1.2], and a brightness of [-0.15, 0.15] added.

    Args:
        image: float `(height, width, 3)` in [0, 1].
        seed: int `(2,)`. Equal seeds give equal colours.

    Returns:
        float32 of the same shape, clipped to [0, 1].
    """
    seeds = _split(seed, 5)
    uniform = tf.random.stateless_uniform
    order = tf.argsort(uniform([3], seeds[0]))
    ordered = tf.where(
        uniform([], seeds[1]) < 0.5, tf.gather(image, order, axis=-1), image
    )
    grey = tf.reduce_mean(ordered, axis=-1, keepdims=True)
    saturated = grey + uniform([], seeds[2], 0.3, 1.5) * (ordered - grey)
    gained = saturated * uniform([3], seeds[3], 0.8, 1.2)
    return tf.clip_by_value(gained + uniform([], seeds[4], -0.15, 0.15), 0.0, 1.0)


def upsampler_crop(image, size, seed):
    """Crops a picture at its own resolution, for training an upsampler.

    A random square, mirrored in half of the cases, then turned by a random number of
    right angles: what super-resolution is commonly trained with. Neither the papers'
    listing nor Parti's; what Parti's upsampler was shown is not published.

    Args:
        image: float `(height, width, 3)` in [0, 1], any size.
        size: int. Side of the result in pixels.
        seed: int `(2,)`. Equal seeds give equal crops.

    Returns:
        float32 `(size, size, 3)` in [0, 1], in steps of 1/255.
    """
    seeds = _split(seed, 3)
    image, _ = _enlarged(image, size)
    crop = tf.round(_random_crop(image, size, seeds[0]) * 255.0) / 255.0
    crop = tf.image.stateless_random_flip_left_right(crop, seeds[1])
    return tf.ensure_shape(tf.image.rot90(crop, _uniform(0, 4, seeds[2])), crop.shape)


def shift_and_flip(image, shift, flip_rate, seed):
    """Moves a picture by some pixels, its edges mirrored, and mirrors it at times.

    Args:
        image: float `(height, width, 3)`.
        shift: int, at most the sides. Pixels along each axis, at most, to either side.
        flip_rate: float in `[0, 1]`. How often left and right are exchanged.
        seed: int `(2,)`. Equal seeds give equal pictures.

    Returns:
        float32 of the same shape.
    """
    seeds = _split(seed, 2)
    edges = [[shift, shift], [shift, shift], [0, 0]]
    wide = tf.pad(image, edges, "SYMMETRIC")
    moved = tf.image.stateless_random_crop(wide, tf.shape(image), seeds[0])
    flipped = tf.random.stateless_uniform([], seeds[1]) < flip_rate
    moved = tf.where(flipped, moved[:, ::-1], moved)
    return tf.ensure_shape(moved, image.shape)


CROPS = {
    "tokenizer": tokenizer_crop,
    "recolored": recolored_crop,
    "transformer": transformer_crop,
    "upsampler": upsampler_crop,
}


def augment(
    dataset: tf.data.Dataset, kind: str, size: int, seed: int, first: int = 0
) -> tf.data.Dataset:
    """Crops the `image` of every example of a dataset, each with a seed of its own.

    The seed of an example is `seed` and its place in the dataset: skipping examples,
    as a resumed run does, changes none of the others, and a repeated dataset shows
    another crop in each pass.

    Args:
        dataset: `tf.data.Dataset` of dicts with `image`, float `(height, width, 3)`.
        kind: a key of `CROPS`: "tokenizer" for listing 1, "recolored" for listing 1
            with other colours, "transformer" for listing 2, "upsampler" for squares at
            the picture's own resolution.
        size: int. Side of the results in pixels.
        seed: int.
        first: int. The place of the first example, where the dataset is a part of one.

    Returns:
        The dataset with `image` float32 `(size, size, 3)`.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in CROPS:
        raise ValueError(f"`kind` must be one of {list(CROPS)}. Received: {kind!r}")

    def crop(place, example):
        own = tf.stack([tf.constant(seed, tf.int64), place])
        return {**example, "image": CROPS[kind](example["image"], size, own)}

    return dataset.enumerate(first).map(crop, num_parallel_calls=tf.data.AUTOTUNE)


def _split(seed, number):
    return tf.unstack(tf.random.split(tf.cast(seed, tf.int32), number))


def _uniform(low, high, seed):
    """An int32 of [low, high)."""
    return tf.random.stateless_uniform([], seed, low, high, tf.int32)


def _near_centre(slack, seed):
    low = 3 * slack // 8
    # Without slack the range would be empty; the listing takes one offset then.
    return _uniform(low, tf.maximum(low + 1, 5 * slack // 8), seed)


def _enlarged(image, size):
    """The picture, its shorter side at least `size`, and that side."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    shorter = tf.minimum(height, width)

    def enlarge():
        longer = tf.cast(tf.maximum(height, width), tf.float32)
        grown = longer * float(size) / tf.cast(shorter, tf.float32)
        other = tf.cast(tf.math.ceil(grown), tf.int32)
        sides = tf.where(height < width, [size, other], [other, size])
        larger = tf.image.resize(image, sides, tf.image.ResizeMethod.BICUBIC)
        return tf.clip_by_value(larger, 0.0, 1.0)

    image = tf.cast(image, tf.float32)
    image = tf.cond(shorter < size, enlarge, lambda: image)
    image.set_shape((None, None, 3))
    return image, tf.maximum(shorter, size)


def _resize_by_area(square, side):
    resized = tf.image.resize(square, (side, side), tf.image.ResizeMethod.AREA)
    # The listing goes back to 8 bits here.
    return tf.round(tf.clip_by_value(resized, 0.0, 1.0) * 255.0) / 255.0


def _random_crop(image, size, seed):
    crop = tf.image.stateless_random_crop(image, (size, size, 3), seed)
    return tf.ensure_shape(crop, (size, size, 3))
