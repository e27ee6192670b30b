"""Encoded pictures of any origin to sRGB on white, or to the name of what is wrong with them."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ssd1b.corpus.profiles import in_srgb
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.sizes import Size

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""What is opened at all. Pillow knows others, of which EPS would start Ghostscript on a stranger's program."""
ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose further frames are an animation, not pages (TIFF) or depth maps (a phone's JPEG)."""
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture, upright, sRGB, on white."""

    image: Image.Image
    """At the original size, or a JPEG's half, quarter or eighth of it where `at_least` allows."""
    original: Size
    """Height and width of the encoded picture, upright."""
    animated: bool = False
    """It has more frames than this one."""


def decode(data: bytes, *, max_pixels: int, at_least: Size | None = None) -> Picture | Reject:
    """Return the first frame of an encoded picture, whole and upright, or why there is none.

    at_least lets a JPEG be decoded at a fraction of its size that still covers the given one: twice as fast.
    Transparent parts become white; palettes, CMYK, grey and 16-bit pictures become 8-bit RGB, by their colour profile
    where they have one. Without one CMYK is converted naively, since nobody can say what its inks were.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            return Reject(reason=Reason.IMAGE_TOO_LARGE, detail=f"{image.width}x{image.height}")
        animated = image.format in ANIMATIONS and bool(getattr(image, "is_animated", False))
        orientation = image.getexif().get(ORIENTATION, 1)
        sideways = orientation in SIDEWAYS
        size = Size(image.width, image.height) if sideways else Size(image.height, image.width)
        if at_least is not None:
            side = max(at_least.height, at_least.width) if sideways else 0
            image.draft("RGB", (side or at_least.width, side or at_least.height))
        image.load()
        if image.mode in ("F", "I"):
            return Reject(reason=Reason.IMAGE_MODE_UNKNOWN, detail=f"mode {image.mode}")
        upright = image if orientation == 1 else ImageOps.exif_transpose(image)  # which copies in any case
        return Picture(image=on_white(in_srgb(upright)), original=size, animated=animated)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Reject(reason=Reason.IMAGE_TOO_LARGE, detail=str(error))
    except UnidentifiedImageError:  # its own message holds an address in memory
        return Reject(reason=Reason.IMAGE_CORRUPT, detail=f"none of {', '.join(FORMATS)}")
    except Exception as error:  # hostile bytes make PIL's parsers raise nearly anything
        return Reject(reason=Reason.IMAGE_CORRUPT, detail=f"{type(error).__name__}: {error}")


def on_white(image: Image.Image) -> Image.Image:
    """Return the picture as 8-bit RGB, composed onto white where it is transparent."""
    if image.mode in SIXTEEN_BIT:
        # convert("RGB") would clip at 255 and turn a 16-bit picture white
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    drawing = image.convert("RGBA")
    canvas = Image.new("RGBA", drawing.size, "white")
    canvas.alpha_composite(drawing)
    return canvas.convert("RGB")


def is_blank(image: Image.Image) -> bool:
    return all(low == high for low, high in image.convert("RGB").getextrema())  # type: ignore[misc]
