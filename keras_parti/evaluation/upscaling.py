"""How much better than interpolation upsamplers are: PSNR, SSIM, LPIPS, and a strip.

Trained with ℓ2 an upsampler has the highest PSNR, and blurs what it cannot know; an
adversarial one makes up detail, which costs PSNR and looks right. LPIPS asks a network
how alike two pictures look.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from keras_parti.evaluation.gallery import evenly, strip
from keras_parti.evaluation.likeness import likeness
from keras_parti.evaluation.reports import markdown_table, quantiles, write_report
from keras_parti.metrics import psnr, ssim
from keras_parti.models import Perceptual
from keras_parti.models.degradation import enlarge
from keras_parti.pixels import check_pictures, to_floats
from keras_parti.typing import Tensor

INTERPOLATIONS = ("nearest", "bicubic")
WINDOW = 64  # pixels along each side of what the strip shows of a picture, at most


def evaluate_upscaling(
    upscalers: dict[str, Callable[[Tensor], Tensor]],
    degrade: Callable[[Tensor], Tensor],
    pictures: np.ndarray,
    scale: int,
    out: str | os.PathLike,
    *,
    perceptual: Perceptual | None = None,
    columns: int = 6,
) -> dict[str, Any]:
    """Measures upsamplers on originals made small, and writes the figures.

    All pixels and all three channels count; pictures are compared before they are
    rounded to 8 bits.

    Args:
        upscalers: dict of a name to a function of small pictures to large ones, such as
            `WDSR.upscale`.
        degrade: function of originals to small pictures, both float NumPy or tensors
            `(batch, height, width, 3)` in `[0, 1]`, of `keras_parti.models.degradation`
            or of `keras_parti.training.upsampler.Upsampling`.
        pictures: uint8, or float in [0, 1], `(n, height, width, 3)`, the originals, 11
            pixels or more along each side; sides that `scale` does not divide are cut.
        scale: int.
        out: path of the folder to write: `results.json`, `table.md`, `strip.png`.
        perceptual: `keras_parti.models.Perceptual` to measure LPIPS too, or None.
        columns: int. Pictures in the strip, evenly spread over the set; it shows the
            64 × 64 pixels of each where the original has most detail.

    Returns:
        The content of `results.json`: `pictures`; `scale`; `psnr` in decibels, `ssim`
        and, where asked for, `lpips`, the means over pictures of `nearest`, `bicubic`
        and each upsampler; and of each upsampler, beside bicubic, `better`, the share
        of pictures with a higher PSNR, and `gain_quantiles`, of the decibels above.

    Raises:
        ValueError: no pictures.
    """
    pictures = check_pictures(pictures, "pictures")
    height, width = (side - side % scale for side in pictures.shape[1:3])
    pictures = pictures[:, :height, :width]
    alike = None if perceptual is None else likeness(perceptual)
    names = (*INTERPOLATIONS, *upscalers)
    scores: dict[str, dict[str, list[float]]] = {
        measure: {name: [] for name in names}
        for measure in ("psnr", "ssim", *(["lpips"] if alike else []))
    }
    shown = evenly(len(pictures), columns)
    strips: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "original")}
    for index in tqdm(range(len(pictures)), "upscaling", unit="picture", disable=None):
        original = to_floats(pictures[index : index + 1])
        small = degrade(original)
        copies = {
            "nearest": enlarge(small, scale, "nearest"),
            "bicubic": enlarge(small, scale),
            **{name: upscale(small) for name, upscale in upscalers.items()},
        }
        copies = {name: keras.ops.convert_to_numpy(c) for name, c in copies.items()}
        for name, copy in copies.items():
            scores["psnr"][name].append(float(psnr(original, copy)[0]))
            scores["ssim"][name].append(float(ssim(original, copy)[0]))
        if alike:
            for name, values in alike(original, copies).items():
                scores["lpips"][name].append(float(values[0]))
        if index in shown:
            window = most_detailed(pictures[index])
            for name, copy in (copies | {"original": original}).items():
                strips[name].append(copy[0][window])
    results: dict[str, Any] = {
        "pictures": len(pictures),
        "scale": scale,
        **{
            measure: {name: float(np.mean(values)) for name, values in of.items()}
            for measure, of in scores.items()
        },
        "better": {},
        "gain_quantiles": {},
    }
    for name in upscalers:
        gain = np.subtract(scores["psnr"][name], scores["psnr"]["bicubic"])
        results["better"][name] = float(np.mean(gain > 0))
        results["gain_quantiles"][name] = quantiles(gain)
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
    lpips = results.get("lpips")
    if lpips:
        header.append("mean LPIPS, less is more alike")
    bicubic = results["psnr"]["bicubic"]
    rows = [
        [
            name,
            f"{value:.2f}",
            f"{results['ssim'][name]:.4f}",
            f"{value - bicubic:+.2f}",
            *([f"{lpips[name]:.4f}"] if lpips else []),
        ]
        for name, value in results["psnr"].items()
    ]
    lines = [markdown_table(header, rows), ""]
    lines.append(f"Pictures: {results['pictures']:,}, ×{results['scale']}.")
    for name, gains in results["gain_quantiles"].items():
        low, middle, high = gains.values()
        lines.append(
            f"The PSNR of {name} is above bicubic's in "
            f"{100 * results['better'][name]:.0f} % of them; 5 %, 50 % and 95 % are "
            f"below {low:+.2f}, {middle:+.2f} and {high:+.2f} dB of it."
        )
    return "\n".join(lines)
