"""How much better than interpolation an upsampler is: PSNR and SSIM, and a strip."""

from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from keras_parti.evaluation.gallery import strip
from keras_parti.evaluation.reports import markdown_table, write_report
from keras_parti.metrics import psnr, ssim
from keras_parti.models.degradation import enlarge

ROWS = ("nearest", "bicubic", "WDSR")
WINDOW = 64  # pixels along each side of what the strip shows of a picture, at most


def evaluate_upscaling(upscale, degrade, pictures, scale, out, *, columns=6):
    """Measures an upsampler on originals made small, and writes the figures.

    All pixels and all three channels count; pictures are compared before they are
    rounded to 8 bits.

    Args:
        upscale: function of small pictures to large ones, such as `WDSR.upscale`.
        degrade: function of originals to small pictures, both float NumPy or tensors
            `(batch, height, width, 3)` in `[0, 1]`, of `keras_parti.models.degradation`
            or of `keras_parti.training.upsampler.Upsampling`.
        pictures: uint8 `(n, height, width, 3)`, the originals, 11 pixels or more along
            each side; sides that `scale` does not divide are cut.
        scale: int.
        out: path of the folder to write: `results.json`, `table.md`, `strip.png`.
        columns: int. Parts of the set, of each of which the strip shows the 64 × 64
            pixels where the original has most detail.

    Returns:
        The content of `results.json`: `pictures`; `scale`; `psnr` in decibels and
        `ssim`, the means over pictures of `nearest`, `bicubic` and `WDSR`;
        `gain_quantiles`, of the decibels above bicubic; `better`, the share of pictures
        with a higher PSNR than bicubic's.

    Raises:
        ValueError: no pictures.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim != 4 or not len(pictures) or pictures.dtype != np.uint8:
        raise ValueError(
            "`pictures` must be uint8 (n, height, width, 3), n at least 1. "
            f"Received: {pictures.dtype} {pictures.shape}"
        )
    height, width = (side - side % scale for side in pictures.shape[1:3])
    pictures = pictures[:, :height, :width]
    scores = {score: {name: [] for name in ROWS} for score in ("psnr", "ssim")}
    shown = most_detailed(pictures, columns)
    strips = {name: [] for name in (*ROWS, "original")}
    for index in tqdm(range(len(pictures)), "upscaling", unit="picture", disable=None):
        original = pictures[index : index + 1].astype(np.float32) / 255.0
        small = degrade(original)
        copies = {
            "nearest": enlarge(small, scale, "nearest"),
            "bicubic": enlarge(small, scale),
            "WDSR": upscale(small),
        }
        for name, copy in copies.items():
            copy = keras.ops.convert_to_numpy(copy)
            scores["psnr"][name].append(float(psnr(original, copy)[0]))
            scores["ssim"][name].append(float(ssim(original, copy)[0]))
            copies[name] = copy
        if index in shown:
            for name, copy in (copies | {"original": original}).items():
                strips[name].append(copy[0][shown[index]])
    gain = np.subtract(scores["psnr"]["WDSR"], scores["psnr"]["bicubic"])
    quantiles = zip(
        ("5 %", "50 %", "95 %"), np.percentile(gain, [5, 50, 95]), strict=True
    )
    results = {
        "pictures": len(pictures),
        "scale": scale,
        **{
            score: {name: float(np.mean(values)) for name, values in of.items()}
            for score, of in scores.items()
        },
        "gain_quantiles": {name: float(value) for name, value in quantiles},
        "better": float(np.mean(gain > 0)),
    }
    write_report(out, results, _report(results))
    rows = [(name, np.stack(windows)) for name, windows in strips.items()]
    strip(rows, size=4 * min(width, WINDOW)).save(Path(out) / "strip.png")
    return results


def most_detailed(pictures, columns):
    """Finds where originals have most detail: there interpolation shows.

    Args:
        pictures: uint8 `(n, height, width, 3)`.
        columns: int. Parts of the set, one after the other.

    Returns:
        A dict from the index of a picture, one of each part, to two slices, of its rows
        and columns: at most 64 × 64 pixels with the largest sum of the differences of
        neighbours, of windows half of that apart.
    """
    side = min(*pictures.shape[1:3], WINDOW)
    found = {}
    for part in np.array_split(np.arange(len(pictures)), min(columns, len(pictures))):
        best = -1
        for index in part:
            grey = pictures[index].mean(axis=-1)
            rows, cols = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
            for top in range(0, len(grey) - side + 1, max(side // 2, 1)):
                for left in range(0, grey.shape[1] - side + 1, max(side // 2, 1)):
                    here = slice(top, top + side), slice(left, left + side)
                    detail = rows[here].sum() + cols[here].sum()
                    if detail > best:
                        best, chosen = detail, (index, here)
        found[chosen[0]] = chosen[1]
    return found


def _report(results):
    header = ["picture", "mean PSNR (dB)", "mean SSIM", "PSNR above bicubic (dB)"]
    bicubic = results["psnr"]["bicubic"]
    rows = [
        [
            name,
            f"{results['psnr'][name]:.2f}",
            f"{results['ssim'][name]:.4f}",
            f"{results['psnr'][name] - bicubic:+.2f}",
        ]
        for name in ROWS
    ]
    low, middle, high = results["gain_quantiles"].values()
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"Over {results['pictures']} pictures, ×{results['scale']}; the PSNR is above "
        f"bicubic's in {100 * results['better']:.0f} % of them, and 5 %, 50 % and 95 % "
        f"are below {low:+.2f}, {middle:+.2f} and {high:+.2f} dB of it."
    )
