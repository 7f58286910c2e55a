"""Pictures as arrays and as files, on the client's side."""

import io

import numpy as np
from PIL import Image


def read_picture(content):
    """Turns bytes of a PNG or JPEG file into uint8 `(height, width, 3)`."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def write_picture(image):
    """Turns an image, uint8 or float in [0, 1], into bytes of a PNG file.

    Raises:
        ValueError: It has another shape, or values that are no colours.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.size == 0:
        raise ValueError(
            f"An image must be (height, width, 3). Received shape: {image.shape}"
        )
    if image.dtype != np.uint8:
        if not (np.issubdtype(image.dtype, np.floating) and _in_range(image)):
            raise ValueError(
                "An image must be uint8, or float in [0, 1]. "
                f"Received: {image.dtype} in [{image.min()}, {image.max()}]"
            )
        image = np.round(image * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def files(images):
    """Turns images, or bytes of files, into a list of bytes of files."""
    return [i if isinstance(i, bytes) else write_picture(i) for i in images]


def _in_range(image):
    return bool(np.all((image >= 0) & (image <= 1)))
