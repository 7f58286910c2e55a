"""Pictures as arrays and as files, on the client's side."""

import io

import numpy as np
from PIL import Image

from keras_parti.pixels import check_pictures, to_uint8


def read_picture(content):
    """Turns bytes of a PNG or JPEG file into uint8 `(height, width, 3)`."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def write_picture(image):
    """Turns an image, uint8 or float in [0, 1], into bytes of a PNG file.

    Raises:
        ValueError: It has another shape, or values that are no colours.
    """
    image = check_pictures(image, "image", rank=3)
    # Written so that a NaN is out of range, too.
    if image.dtype != np.uint8 and not np.all((image >= 0) & (image <= 1)):
        raise ValueError(
            "`image` must be uint8, or float in [0, 1]. "
            f"Received: {image.dtype} in [{image.min()}, {image.max()}]"
        )
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "PNG")
    return buffer.getvalue()


def files(images):
    """Turns images, or bytes of files, into a list of bytes of files."""
    return [i if isinstance(i, bytes) else write_picture(i) for i in images]
