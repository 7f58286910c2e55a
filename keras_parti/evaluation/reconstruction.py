"""How faithful a tokenizer is: PSNR, use of its codebook, pictures before and after."""

from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from keras_parti.evaluation.features import PixelFeatures
from keras_parti.evaluation.gallery import strip
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.metrics import CodebookPerplexity, CodebookUsage, psnr

THUMBNAIL = 16  # pixels along each side, of the thumbnail to be beaten


def evaluate_reconstruction(tokenizer, pictures, out, *, batch_size=32, columns=10):
    """Measures a tokenizer on pictures and writes the figures and a strip.

    Two baselines stand beside it: a thumbnail of 16 x 16 (mean over areas) enlarged
    again (bicubic), and all white, since these sets are drawn on white.

    Args:
        tokenizer: with `encode` (images to ids), `decode` (ids to images in [0, 1]) and
            `config.num_codes`, such as a `ViTVQGAN`.
        pictures: uint8 `(n, height, width, 3)`, or `Pictures`.
        out: path of the folder to write: `results.json`, `table.md`, `strip.png`.
        batch_size: int.
        columns: int. Pictures in the strip, evenly spread over the set.

    Returns:
        The content of `results.json`: `pictures`; `psnr`, the means over pictures in
        decibels of `tokenizer`, `thumbnail` and `white`; `psnr_quantiles` of the
        tokenizer; `usage` in [0, 1] and `perplexity` of the codebook over the set
        seen once; `num_codes`, `ids_per_picture`.

    Raises:
        ValueError: no pictures, or of another size than the tokenizer's.
    """
    images = np.asarray(getattr(pictures, "images", pictures))
    if images.ndim != 4 or not len(images) or images.dtype != np.uint8:
        raise ValueError(
            "`pictures` must be uint8 (n, height, width, 3), n at least 1. "
            f"Received: {images.dtype} {images.shape}"
        )
    num_codes = tokenizer.config.num_codes
    usage, perplexity = CodebookUsage(num_codes), CodebookPerplexity(num_codes)
    decibels = {"tokenizer": [], "thumbnail": [], "white": []}
    shown = np.unique(np.linspace(0, len(images) - 1, columns).astype(int))
    rebuilt = {}
    starts = range(0, len(images), batch_size)
    for start in tqdm(starts, desc="reconstruction", unit="batch", disable=None):
        batch = images[start : start + batch_size].astype(np.float32) / 255.0
        ids = tokenizer.encode(batch)
        usage.update_state(ids)
        perplexity.update_state(ids)
        copies = {
            "tokenizer": np.clip(_array(tokenizer.decode(ids)), 0.0, 1.0),
            "thumbnail": thumbnail(batch),
            "white": np.ones_like(batch),
        }
        for name, copy in copies.items():
            decibels[name].append(_array(psnr(batch, copy)))
        for index in shown[(shown >= start) & (shown < start + len(batch))]:
            rebuilt[index] = {
                name: copy[index - start] for name, copy in copies.items()
            }
    decibels = {name: np.concatenate(parts) for name, parts in decibels.items()}
    quantiles = np.percentile(decibels["tokenizer"], [5, 50, 95])
    results = {
        "pictures": len(images),
        "psnr": {name: float(values.mean()) for name, values in decibels.items()},
        "psnr_quantiles": dict(
            zip(("5 %", "50 %", "95 %"), quantiles.tolist(), strict=True)
        ),
        "usage": float(usage.result()),
        "perplexity": float(perplexity.result()),
        "num_codes": num_codes,
        "ids_per_picture": int(np.prod(ids.shape[1:])),
    }
    write_report(out, results, _report(results))
    rows = [
        ("original", images[shown]),
        ("thumbnail", np.stack([rebuilt[index]["thumbnail"] for index in shown])),
        ("reconstruction", np.stack([rebuilt[index]["tokenizer"] for index in shown])),
    ]
    strip(rows, size=2 * images.shape[2]).save(Path(out) / "strip.png")
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
    header = ["picture", "mean PSNR (dB)"]
    rows = [
        [name, f"{results['psnr'][key]:.2f}"]
        for key, name in (
            ("tokenizer", "the tokenizer's reconstruction"),
            ("thumbnail", f"a {THUMBNAIL} x {THUMBNAIL} thumbnail, enlarged"),
            ("white", "all white"),
        )
    ]
    low, middle, high = results["psnr_quantiles"].values()
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"Over {results['pictures']} pictures; 5 %, 50 % and 95 % of them are below "
        f"{low:.1f}, {middle:.1f} and {high:.1f} dB. "
        f"{100 * results['usage']:.1f} % of the {results['num_codes']:,} codes were "
        f"used ({results['pictures'] * results['ids_per_picture']:,} ids), perplexity "
        f"{results['perplexity']:.0f}."
    )
