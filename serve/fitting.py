"""Pictures to start from: files of strangers, scaled and cropped to what the model draws.

The middle is kept: a picture is scaled until it covers the size and what is over is cut off evenly, as A1111's "crop
and resize" does. Its mask goes the same way, and then to one value a latent position.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serve.errors import RequestError
from ssd1b.sizes import Size, nearest_bucket

# H W height and width in pixels, h w an eighth of them, 3 red green blue

FORMATS = ("PNG", "JPEG", "WEBP")
PIXELS = 50_000_000
"""In a picture that is opened at most: a small file may unfold to gigabytes."""
LATENT_PIXELS = 8


def fitted(data: bytes, size: Size) -> NDArray[np.float32]:
    """Return the picture, float32 (3, H, W) in [-1, 1]; what is transparent in it is white.

    Raises:
        RequestError: not a PNG, JPEG or WebP file that can be read, or one of too many pixels.
    """
    picture = opened(data, "image").convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture)
    levels_HW3 = np.asarray(covering(ground.convert("RGB"), size), np.float32)
    return np.ascontiguousarray(levels_HW3.transpose(2, 0, 1) / 127.5 - 1)


def fitted_mask(data: bytes, size: Size) -> NDArray[np.float32]:
    """Return the mask, float32 (1, h, w): 1 where the picture is drawn anew.

    A latent position is drawn anew where more than half of its pixels are: half kept, it would be neither.

    Raises:
        RequestError: see `fitted`.
    """
    levels_HW = np.asarray(covering(opened(data, "mask").convert("L"), size), np.float32) / 255
    latent = size.latent
    means_hw = levels_HW.reshape(latent.height, LATENT_PIXELS, latent.width, LATENT_PIXELS).mean((1, 3))
    return np.asarray(means_hw > 0.5, np.float32)[None]


def nearest_size(data: bytes, sizes: tuple[Size, ...]) -> Size:
    """Return the size on offer whose shape is nearest to the picture's.

    Raises:
        RequestError: see `fitted`.
    """
    width, height = opened(data, "image").size
    return nearest_bucket(Size(height, width), sizes)


def opened(data: bytes, param: str) -> Image.Image:
    """Return a picture, the right way up."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXELS:
                raise RequestError(
                    f"{param} has {picture.width}x{picture.height} pixels; at most {PIXELS:,} are read: scale it down",
                    param,
                    "invalid_value",
                )
            picture.load()
            return ImageOps.exif_transpose(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        message = f"{param} cannot be read as a picture{why}: send a PNG, JPEG or WebP file"
        raise RequestError(message, param, "invalid_value") from error


def covering(picture: Image.Image, size: Size) -> Image.Image:
    """Return the picture scaled to cover the size, and cut off about its centre."""
    return ImageOps.fit(picture, (size.width, size.height), Image.Resampling.LANCZOS)
