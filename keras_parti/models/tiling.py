"""Enlarges pictures of any size, a tile at a time, with no seam to be seen."""

from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from keras_parti.models.wdsr import WDSR
from keras_parti.pixels import check_pictures, to_floats
from keras_parti.typing import Tensor

TILE = 256  # pixels of the input, along each side of what a step enlarges


def upscale_tiled(
    model: WDSR,
    image: np.ndarray,
    tile: int = TILE,
    upscale: Callable[[Tensor], Tensor] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Enlarges one picture of any size; picture and result are all the memory it takes.

    Args:
        model: `WDSR`.
        image: as `upscale_bands` takes it.
        tile: as `upscale_bands` takes it.
        upscale: as `upscale_bands` takes it.
        out: NumPy array that the result is written to, such as a `np.memmap`; None for
            a new one.

    Returns:
        NumPy `(scale · height, scale · width, 3)` of the type of `image`, uint8 or
        float32; `out` if it was given.

    Raises:
        ValueError: as `upscale_bands`, or `out` does not fit.
    """
    image = _checked(image)
    height, width, _ = image.shape
    shape, dtype = (model.scale * height, model.scale * width, 3), image.dtype
    if out is None:
        out = np.empty(shape, dtype)
    elif out.shape != shape or out.dtype != dtype:
        raise ValueError(
            f"`out` must be {dtype} {shape}. Received: {out.dtype} {out.shape}"
        )
    row = 0
    for band in upscale_bands(model, image, tile, upscale):
        out[row : row + len(band)] = band
        row += len(band)
    return out


def upscale_bands(
    model: WDSR,
    image: np.ndarray,
    tile: int = TILE,
    upscale: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[list], Iterable] = iter,
) -> Iterator[np.ndarray]:
    """Enlarges one picture of any size in bounded memory, from top to bottom.

    Each tile is enlarged with as much around it as its pixels can see, `config.radius`,
    so that all its pixels are those of the whole picture enlarged at once. Beside the
    picture there are in memory a row of enlarged tiles and one tile with some hundreds
    of features a pixel.

    Args:
        model: `WDSR`.
        image: `(height, width, 3)` NumPy, RGB: uint8, or float in `[0, 1]`; one pixel
            or more along each side.
        tile: int. Side in pixels of what is enlarged at a time, without what is around.
        upscale: function that is called in place of `model.upscale`, such as a compiled
            one; None for that.
        progress: function of the list of tiles that iterates over it, such as `tqdm`.

    Yields:
        NumPy `(rows, scale · width, 3)` of the type of `image`, uint8 or float32: the
        bands of the enlarged picture, `scale · tile` rows each and fewer in the last.

    Raises:
        ValueError: `image` is no RGB picture, or `tile` is below 1.
    """
    image = _checked(image)
    if tile < 1:
        raise ValueError(f"`tile` must be positive. Received: tile={tile}")
    height, width, _ = image.shape
    scale, radius = model.scale, model.config.radius
    upscale = upscale or model.upscale
    places = [
        (rows, columns)
        for rows in _tiles(height, tile, radius)
        for columns in _tiles(width, tile, radius)
    ]
    for rows, columns in progress(places):
        top, bottom, first_row, last_row = rows
        left, right, first_column, last_column = columns
        if left == 0:
            band = np.empty((scale * (bottom - top), scale * width, 3), image.dtype)
        window = image[first_row:last_row, first_column:last_column][None]
        large = keras.ops.convert_to_numpy(upscale(to_floats(window)))[0]
        inner = large[
            scale * (top - first_row) : scale * (bottom - first_row),
            scale * (left - first_column) : scale * (right - first_column),
        ]
        if image.dtype == np.uint8:
            inner = np.rint(inner * 255.0)
        band[:, scale * left : scale * right] = inner
        if right == width:
            yield band


def _tiles(side, tile, radius):
    """Yields (start, end, start of the window, its end) of the tiles along an axis.

    Windows are all of one length where the side allows, so that few shapes are compiled
    for: near an edge they reach farther inwards instead of beyond it.
    """
    length = min(side, tile + 2 * radius)
    for start in range(0, side, tile):
        first = min(max(0, start - radius), side - length)
        yield start, min(start + tile, side), first, first + length


def _checked(image):
    image = check_pictures(image, "image", rank=3)
    return image if image.dtype == np.uint8 else to_floats(image)
