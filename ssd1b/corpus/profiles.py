"""Colour profiles: a picture in its own colour space to sRGB, in which models see and screens show.

Without this a phone's Display P3 looks pale and a print's CMYK looks garish, and a model learns both.
"""

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms

LARGEST = 4 << 20
"""Bytes of the largest profile that is read. Those of printing presses have 2 MiB; more is ballast, and is ignored."""
MODES = {"RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
"""Modes that are converted, and to what. Grey pictures and palettes stay as they are: theirs are near sRGB's grey."""


def in_srgb(image: Image.Image) -> Image.Image:
    """Return the picture in sRGB by its embedded profile; unchanged without one, or with one that cannot be used.

    A broken profile is no fault of the pixels: as in browsers it counts as none.
    """
    profile = image.info.get("icc_profile")
    if image.mode not in MODES or not isinstance(profile, bytes) or not 0 < len(profile) <= LARGEST:
        return image
    # a transparent colour of an RGB picture is told in its info, which a transform does not carry over
    pixels = image.convert("RGBA") if image.mode == "RGB" and image.has_transparency_data else image
    transform = to_srgb(profile, pixels.mode)
    return image if transform is None else transform.apply(pixels)


@lru_cache(maxsize=64)  # a corpus has thousands of pictures for each profile
def to_srgb(profile: bytes, mode: str) -> Any:
    """Return the transform of a profile, or None where there is none to do: it is sRGB, broken or of another mode."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, MODES[mode])
    except (ImageCms.PyCMSError, OSError):
        return None
