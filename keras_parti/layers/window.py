"""The convolution-shaped causal window: which keys of a raster a query may see.

Parti says that "all models use conv-shaped masked sparse attention", after DALL-E
(appendix B.1, figure 11), and publishes neither kernel nor layers. DALL-E's kernel is
11×11, causal, "with wraparound": the raster is one long line, so that the window of a
query near the edge of its row goes on at the end of the row before.

References:
    - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.2
    - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), appendix B.1
"""

import numpy as np


def window_length(kernel_size, width):
    """Returns how far back a query sees, its own position included.

    For a kernel of 11 this is `5 · width + 6`: with wraparound or without, no query
    sees a key further back, so this many keys are all a sampler has to keep.

    Args:
        kernel_size: int, odd. Side of the kernel, in tokens.
        width: int. Tokens in a row of the raster.
    """
    radius = check_kernel(kernel_size) // 2
    return radius * (width + 1) + 1


def window_offsets(kernel_size, width):
    """Returns the raster offsets, query minus key, that the window with wraparound has.

    Args:
        kernel_size: int, odd. Side of the kernel, in tokens.
        width: int. Tokens in a row of the raster.

    Returns:
        int array, rising, from 0 to `window_length - 1`: 61 offsets for a kernel of 11
        where `width` is at least 11.
    """
    reach = check_kernel(kernel_size) // 2
    reach = np.arange(-reach, reach + 1)
    offsets = np.unique(width * reach[:, None] + reach)
    return offsets[offsets >= 0]


def window_mask(kernel_size, width, wraparound=True):
    """Returns what a query of each column sees, by raster offset.

    Where the raster begins, offsets above the query's position lie outside of it, and
    whoever uses this mask leaves them out.

    Args:
        kernel_size: int, odd. Side of the kernel, in tokens.
        width: int. Tokens in a row of the raster.
        wraparound: bool. Whether the window goes on at the end of the row before. If
            not, it is cut at the sides of the picture.

    Returns:
        bool array `(width, window_length)`: element `[c, o]` is True where a query in
        column c sees the key o positions before it.
    """
    columns = np.arange(width)[:, None]
    offsets = np.arange(window_length(kernel_size, width))
    if wraparound:
        inside = np.isin(offsets, window_offsets(kernel_size, width))
        return np.broadcast_to(inside, (width, len(offsets))).copy()
    rows_back, key_columns = np.divmod(columns - offsets, width)
    radius = kernel_size // 2
    return (-rows_back <= radius) & (abs(columns - key_columns) <= radius)


def conv_mask(kernel_size, height, width, wraparound=True):
    """Returns the whole mask, the reference that every sparse path equals.

    Args:
        kernel_size: int, odd. Side of the kernel, in tokens.
        height: int. Rows of the raster.
        width: int. Tokens in a row of the raster.
        wraparound: bool. As in `window_mask`.

    Returns:
        bool array `(height * width, height * width)`: True where the query of that row
        sees the key of that column. Every query sees itself.
    """
    positions = np.arange(height * width)
    return mask_between(positions, positions, kernel_size, width, wraparound)


def mask_between(queries, keys, kernel_size, width, wraparound=True):
    """Returns the part of `conv_mask` that belongs to some queries and keys.

    Args:
        queries: int array `(queries,)`, positions in the raster.
        keys: int array `(keys,)`, positions in the raster.
        kernel_size: int, odd. Side of the kernel, in tokens.
        width: int. Tokens in a row of the raster.
        wraparound: bool. As in `window_mask`.

    Returns:
        bool array `(queries, keys)`.
    """
    window = window_mask(kernel_size, width, wraparound)
    offsets, last = queries[:, None] - keys, window.shape[1] - 1
    near = (offsets >= 0) & (offsets <= last)
    return near & window[queries[:, None] % width, offsets.clip(0, last)]


def check_kernel(kernel_size, name="kernel_size"):
    """Returns a kernel's side, or raises `ValueError` where it has no centre."""
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"`{name}` must be an odd positive integer. "
            f"Received: {name}={kernel_size!r}"
        )
    return kernel_size
