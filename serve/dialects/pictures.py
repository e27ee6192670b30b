"""Picture files that callers send: what they are, and OpenAI's mask as ours."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from serve.errors import RequestError
from ssd1b.sizes import Size

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 2**26
"""Of a picture that is sent: a small file can hold a huge one."""


def opened(data: bytes, param: str) -> Image.Image:
    """Return a picture whose header has been read and whose pixels have not.

    Raises:
        RequestError: no PNG, JPEG or WebP file, or one too large.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise too_large(param) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"{param} is not a PNG, JPEG or WebP file", param, "invalid_image") from error
    if image.width * image.height > MOST_PIXELS:
        raise too_large(param)
    return image


def too_large(param: str) -> RequestError:
    return RequestError(f"{param} has more than {MOST_PIXELS} pixels: scale it down", param, "invalid_image")


def whole(data: bytes, param: str) -> Image.Image:
    """Return a picture that has been read to its end. Takes a moment: call it on a thread.

    Raises:
        RequestError: as `opened`, or a broken file.
    """
    return whole_of(opened(data, param), param)


def whole_of(image: Image.Image, param: str) -> Image.Image:
    """Return an opened picture once its pixels are read."""
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(f"{param} is broken: {error}", param, "invalid_image") from error
    return image


def size_of(image: Image.Image) -> Size:
    return Size(image.height, image.width)


def require_shape(mask: Image.Image, picture: Image.Image) -> None:
    """Raise RequestError unless a mask has its picture's size."""
    if mask.size != picture.size:
        wide, high = picture.size
        raise RequestError(
            f"mask is {mask.width}x{mask.height}, image {wide}x{high}: give both the same size", "mask", "invalid_image"
        )


def white_where_clear(mask: Image.Image, param: str = "mask") -> bytes:
    """Return OpenAI's mask, transparent where the picture is drawn anew, as ours, which is white there.

    Raises:
        RequestError: it has no transparency at all.
    """
    if not (mask.mode in ("RGBA", "LA", "PA") or "transparency" in mask.info):
        raise RequestError(
            f"{param} has no alpha channel: make it a PNG that is transparent where to draw anew",
            param,
            "invalid_image",
        )
    alpha_HW = np.asarray(mask.convert("RGBA").getchannel("A"))
    return png(Image.fromarray(255 - alpha_HW))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()
