"""Picture files as they come, decoded by Pillow to what a photographer would expect."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

# What Pillow opens beyond these is no picture that people keep, or runs other programs
# (EPS calls Ghostscript). Not every build of Pillow knows all of them.
Image.init()
FORMATS = tuple(
    name
    for name in (
        "AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP"
    )
    if name in Image.OPEN
)  # fmt: skip
SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff",
    ".webp",
}  # fmt: skip

# Pictures, too, that people keep: to pass them over without a word would surprise.
OTHER_SUFFIXES = {
    ".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".orf", ".psd",
    ".raf", ".rw2", ".svg", ".tga", ".xcf",
}  # fmt: skip

# Pillow's own limit: 89 million, 270 MB once decoded. A file of some kilobytes can
# claim any size.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS


class PictureError(ValueError):
    """A file that holds no picture that can be read; the message says why."""


def decode_picture(source, shortest=None, max_pixels=MAX_PIXELS):
    """Decodes a picture file to RGB.

    Turned as its EXIF orientation says; what is transparent is laid over white;
    greyscale, palettes, CMYK and 16 bits become 8-bit RGB; colours of an embedded
    profile become sRGB; of an animation the first frame is taken.

    Args:
        source: bytes of the file, or its path.
        shortest: int or None. A larger picture may be reduced by a whole factor, each
            pixel a mean over its area, that leaves the shorter side at this or above.
        max_pixels: int. Larger pictures are refused; up to twice `MAX_PIXELS`, which is
            where Pillow refuses them.

    Returns:
        uint8 NumPy `(height, width, 3)`.

    Raises:
        PictureError: no picture, none of these formats, a truncated or damaged file, or
            more than `max_pixels` pixels.
    """
    try:
        if not isinstance(source, bytes):
            source = Path(source).read_bytes()
        if not source:
            raise PictureError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(source), formats=FORMATS)
        with picture:
            if picture.width * picture.height > max_pixels:
                raise PictureError(f"above the limit of {max_pixels:,} pixels")
            if shortest:
                # JPEG files decode at a half, a quarter or an eighth for less.
                picture.draft("RGB", (shortest, shortest))
            # The profile has to be read before `convert` drops it.
            profile = picture.info.get("icc_profile")
            return np.asarray(_to_rgb(picture, profile, shortest))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"above the limit of {max_pixels:,} pixels") from error
    except Exception as error:
        # Pillow's plugins meet damaged files with OSError, SyntaxError, EOFError,
        # struct.error, zlib.error and whatever indexing raises.
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "no picture in a format that is read"
        raise PictureError(reason) from error


def _to_rgb(picture, profile, shortest):
    picture.load()
    if picture.mode[0] in "IF":
        picture = _eight_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    if shortest and (factor := min(picture.size) // shortest) > 1:
        if picture.mode in ("1", "P"):
            picture = picture.convert("RGB")
        # Pillow weighs colours by their alpha here, so that no hidden colour shows.
        picture = picture.reduce(factor)
    # In place, and no `convert` to the mode it has: each would hold a second picture,
    # 0.4 GB of 100 megapixels.
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    if profile and picture.mode in ("RGB", "CMYK"):
        picture = _to_srgb(picture, profile)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture):
    """A greyscale picture of 16 or 32 bits; `convert` would cut all above 255."""
    values = np.asarray(picture).astype(np.float64)
    # 32-bit integers are what Pillow makes of some 16-bit files; floats lie in [0, 1].
    values *= 255 if picture.mode == "F" else 255 / 65535
    eight = Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    eight.getexif().update(picture.getexif())
    return eight


def _to_srgb(picture, profile):
    try:
        embedded = ImageCms.getOpenProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(embedded):
            return picture
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, embedded, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return picture  # a damaged profile: the colours as they are
