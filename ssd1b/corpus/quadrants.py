"""Sheets of four candidates, as Midjourney first answers, cut into the pictures they hold.

Who trains on the sheets teaches collages.
"""

import io
from functools import lru_cache

from PIL import Image

from ssd1b.corpus.pictures import decode
from ssd1b.corpus.reasons import Reason, Reject

MOST_PIXELS = 64_000_000


@lru_cache(maxsize=1)
def quarters(data: bytes) -> tuple[bytes, bytes, bytes, bytes] | Reject:
    """Return the four pictures of a sheet as PNG, row by row, or why there are none.

    Cached, since the four pairs of a sheet come one after the other. A sheet of odd width or height loses the line in
    the middle.
    """
    picture = decode(data, max_pixels=MOST_PIXELS)
    if isinstance(picture, Reject):
        return picture
    image = picture.image
    width, height = image.width // 2, image.height // 2
    if not width or not height:
        return Reject(reason=Reason.TOO_SMALL, detail=f"a sheet of {image.width}x{image.height}")
    lefts, tops = (0, image.width - width), (0, image.height - height)
    one, two, three, four = (png(image.crop((left, top, left + width, top + height))) for top in tops for left in lefts)
    return one, two, three, four


def quadrant_of(data: bytes, number: int) -> bytes | Reject:
    """Return one of the four pictures of a sheet: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    found = quarters(data)
    return found if isinstance(found, Reject) else found[number]


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
