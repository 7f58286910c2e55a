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
        columns: int. Pictures in the strip, evenly spread over the set; it shows the
            64 × 64 pixels of each where the original has most detail.

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
    shown = np.unique(np.linspace(0, len(pictures) - 1, columns).astype(int))
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
            window = most_detailed(pictures[index])
            for name, copy in (copies | {"original": original}).items():
                strips[name].append(copy[0][window])
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


def most_detailed(picture):
    """Finds where an original has most detail: there interpolation shows.

    Args:
        picture: uint8 `(height, width, 3)`.

    Returns:
        Two slices, of rows and columns: at most 64 × 64 pixels with the largest sum of
        the differences of neighbours, of windows half of that apart.
    """
    side = min(*picture.shape[:2], WINDOW)
    grey = picture.mean(axis=-1)
    down, right = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
    windows = [
        (slice(top, top + side), slice(left, left + side))
        for top in range(0, grey.shape[0] - side + 1, max(side // 2, 1))
        for left in range(0, grey.shape[1] - side + 1, max(side // 2, 1))
    ]
    return max(windows, key=lambda here: down[here].sum() + right[here].sum())


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
