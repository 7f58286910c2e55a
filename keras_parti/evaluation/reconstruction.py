"""How faithful a tokenizer is: PSNR, SSIM, LPIPS, use of its codebook, a strip."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_parti.evaluation.features import PixelFeatures
from keras_parti.evaluation.gallery import evenly, strip
from keras_parti.evaluation.likeness import likeness
from keras_parti.evaluation.pictures import Pictures
from keras_parti.evaluation.reports import markdown_table, quantiles, write_report
from keras_parti.metrics import CodebookPerplexity, CodebookUsage, psnr, ssim
from keras_parti.models import Perceptual
from keras_parti.pixels import check_pictures, to_floats

THUMBNAIL = 16  # pixels along each side, where the tokenizer says nothing of its grid
COLUMNS = 10  # of the strip
SHOWN_SIZE = (128, 256)  # least and largest width of a picture in the strip, in pixels


def evaluate_reconstruction(
    tokenizer: Any,
    pictures: np.ndarray | Pictures,
    out: str | os.PathLike,
    *,
    batch_size: int = 32,
    shown: Sequence[int] | None = None,
    perceptual: Perceptual | None = None,
) -> dict[str, Any]:
    """Measures a tokenizer on pictures and writes the figures and a strip.

    Three baselines stand beside it: a thumbnail of one pixel an id (mean over areas)
    enlarged again (bicubic), the mean colour of each picture, and white.

    Args:
        tokenizer: with `encode` (images to ids), `decode` (ids to images in [0, 1]) and
            `config.num_codes`, such as a `ViTVQGAN`.
        pictures: uint8, or float in [0, 1], `(n, height, width, 3)`, 11 pixels or more
            along each side, or `Pictures`.
        out: path of the folder to write: `results.json`, `table.md`, `strip.png`.
        batch_size: int.
        shown: ints or None. Places of the pictures that the strip shows; None for
            ten, evenly spread over the set.
        perceptual: `keras_parti.models.Perceptual` to measure LPIPS too, or None.

    Returns:
        The content of `results.json`: `pictures`; `psnr` in decibels, `ssim` and, where
        asked for, `lpips`, the means over pictures of `tokenizer`, `thumbnail`, `mean`
        and `white`; `l1` and `l2`, the tokenizer's mean absolute and mean square error;
        `psnr_quantiles` and `ssim_quantiles` of the tokenizer; `thumbnail_size`;
        `usage` in [0, 1] and `perplexity` of the codebook over the set seen once;
        `num_codes`; `ids_per_picture`.

    Raises:
        ValueError: no pictures, or of another size than the tokenizer's; or a place
            where there is none.
    """
    images = check_pictures(getattr(pictures, "images", pictures), "pictures")
    num_codes = tokenizer.config.num_codes
    size = getattr(tokenizer.config, "grid_size", THUMBNAIL)
    usage, perplexity = CodebookUsage(num_codes), CodebookPerplexity(num_codes)
    alike = None if perceptual is None else likeness(perceptual)
    scores: dict[str, dict[str, list]] = {}
    l1, l2 = [], []  # of each picture
    if shown is None:
        shown = evenly(len(images), COLUMNS)
    places = np.asarray(shown, int)
    if (
        places.ndim != 1
        or not len(places)
        or not 0 <= places.min() <= places.max() < len(images)
    ):
        raise ValueError(
            f"`shown` must be places in [0, {len(images)}). Received: {places.tolist()}"
        )
    rebuilt = {}
    starts = range(0, len(images), batch_size)
    for start in tqdm(starts, desc="reconstruction", unit="batch", disable=None):
        batch = to_floats(images[start : start + batch_size])
        ids = tokenizer.encode(batch)
        usage.update_state(ids)
        perplexity.update_state(ids)
        copies = {
            "tokenizer": np.clip(_array(tokenizer.decode(ids)), 0.0, 1.0),
            "thumbnail": thumbnail(batch, size),
            "mean": np.broadcast_to(batch.mean((1, 2), keepdims=True), batch.shape),
            "white": np.ones_like(batch),
        }
        figures = {
            measure: {name: _array(of(batch, copy)) for name, copy in copies.items()}
            for measure, of in (("psnr", psnr), ("ssim", ssim))
        }
        if alike:
            figures["lpips"] = alike(batch, copies)
        for measure, of_copies in figures.items():
            for name, values in of_copies.items():
                scores.setdefault(measure, {}).setdefault(name, []).append(values)
        error = batch - copies["tokenizer"]
        l1.extend(np.abs(error).mean((1, 2, 3)))
        l2.extend(np.square(error).mean((1, 2, 3)))
        for index in places[(places >= start) & (places < start + len(batch))]:
            rebuilt[index] = {
                name: copy[index - start] for name, copy in copies.items()
            }
    whole = {
        measure: {name: np.concatenate(parts) for name, parts in of.items()}
        for measure, of in scores.items()
    }
    results = {
        "pictures": len(images),
        **{
            measure: {name: float(values.mean()) for name, values in of.items()}
            for measure, of in whole.items()
        },
        "l1": float(np.mean(l1)),
        "l2": float(np.mean(l2)),
        "psnr_quantiles": quantiles(whole["psnr"]["tokenizer"]),
        "ssim_quantiles": quantiles(whole["ssim"]["tokenizer"]),
        "thumbnail_size": size,
        "usage": float(usage.result()),
        "perplexity": float(perplexity.result()),
        "num_codes": num_codes,
        "ids_per_picture": int(np.prod(ids.shape[1:])),
    }
    write_report(out, results, _report(results))
    rows = [
        ("original", images[places]),
        ("reconstruction", np.stack([rebuilt[index]["tokenizer"] for index in places])),
        ("thumbnail", np.stack([rebuilt[index]["thumbnail"] for index in places])),
    ]
    width = int(np.clip(2 * images.shape[2], *SHOWN_SIZE))
    strip(rows, size=width).save(Path(out) / "strip.png")
    return results


def thumbnail(images, size=THUMBNAIL):
    """Returns what is left of pictures after a thumbnail.

    Args:
        images: float `(batch, height, width, 3)` in [0, 1].
        size: int. Side of the thumbnail: each pixel is the mean over its area.

    Returns:
        float32 NumPy, the same shape: the thumbnail enlarged, bicubic, clipped.
    """
    height, width = images.shape[1:3]
    small = PixelFeatures(size)(images).reshape(-1, size, size, 3)
    large = keras.ops.image.resize(
        small, (height, width), "bicubic", data_format="channels_last"
    )
    return np.clip(_array(large), 0.0, 1.0)


def _array(tensor):
    return keras.ops.convert_to_numpy(tensor).astype(np.float32)


def _report(results):
    side = results["thumbnail_size"]
    header = ["picture", "mean PSNR (dB)", "mean SSIM"]
    lpips = results.get("lpips")
    if lpips:
        header.append("mean LPIPS, less is more alike")
    rows = [
        [
            name,
            f"{results['psnr'][key]:.2f}",
            f"{results['ssim'][key]:.3f}",
            *([f"{lpips[key]:.4f}"] if lpips else []),
        ]
        for key, name in (
            ("tokenizer", "the tokenizer's reconstruction"),
            ("thumbnail", f"a {side} x {side} thumbnail, enlarged"),
            ("mean", "its mean colour"),
            ("white", "all white"),
        )
    ]
    low, middle, high = results["psnr_quantiles"].values()
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"Pictures: {results['pictures']:,}; 5 %, 50 % and 95 % of them are below "
        f"{low:.1f}, {middle:.1f} and {high:.1f} dB. "
        f"{100 * results['usage']:.1f} % of the {results['num_codes']:,} codes were "
        f"used ({results['pictures'] * results['ids_per_picture']:,} ids), perplexity "
        f"{results['perplexity']:.0f}."
    )
