"""What a graph is given by a request: checked columns, and pictures from files."""

import tensorflow as tf

from keras_parti.serving.row_sizes import limited

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

# A picture of few bytes may unfold into any size; this one is 64 MB of RGBA.
MAX_PIXELS = 1 << 24


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
    is_known = demand(
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
    is_small = demand(
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


def read_pictures(image_bytes, size):
    """Turns a column of files into images, as `read_picture` each.

    Args:
        image_bytes: string tensor `(batch,)`, checked here.
        size: int. Pixels a side.

    Returns:
        float32 `(batch, size, size, 3)` in [0, 1].
    """
    return tf.map_fn(
        lambda content: read_picture(content, size),
        limited(column(image_bytes, "image_bytes")),
        # One at a time: unfolded, each may take half a gigabyte.
        parallel_iterations=1,
        fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32),
    )


def graph_function(function, signature):
    """Makes a function a graph with the inputs of a signature."""
    # Nothing here needs AutoGraph, which would rewrite Keras' layers as well.
    return tf.function(function, input_signature=signature, autograph=False)


def forget_shape(tensor):
    """Returns the same tensor with nothing known of its shape.

    Servers do not hold requests to the shapes that a signature states, and TensorFlow
    folds a check away as true where it believes to know the shape: from the signature,
    even through `placeholder_with_default`, or from what a later op asks for. Of
    parsed bytes it can know nothing, and a reshape behind the check asks for nothing.
    """
    return tf.io.parse_tensor(tf.io.serialize_tensor(tensor), tensor.dtype)


def column(tensor, name):
    """Returns the same tensor, checked to have one value a row."""
    tensor = forget_shape(tensor)
    is_column = demand(
        tf.equal(tf.rank(tensor), 1),
        f"{name} must have shape (batch,). Received rank:",
        tf.rank(tensor),
    )
    with tf.control_dependencies([is_column]):
        return tf.reshape(tensor, [-1])


def demand(condition, message, *received):
    """Returns a check inside the graph, whose failure is INVALID_ARGUMENT."""
    return tf.debugging.Assert(condition, [message, *received])
