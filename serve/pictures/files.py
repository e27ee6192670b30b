"""Picture files: pixels with their text in, bytes out; and the text of a file back."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from serve.pictures.parameters import Parameters
from serve.request import OutputFormat

KEY = "parameters"
UNICODE = b"UNICODE\0"
"""EXIF's mark of a comment in UTF-16; its other one is ASCII, which no prompt can be relied on to be."""
LONG, UNDEFINED = 4, 7
"""EXIF's types of a value."""
EXIF_BYTES = 65_000
"""A JPEG's EXIF fits into one segment of 64 KiB, less its heads."""


def picture_file(
    pixels_HW3: NDArray[np.uint8], form: OutputFormat, quality: int = 100, text: Parameters | None = None
) -> bytes:
    """Return the bytes of a picture file, the same for the same arguments.

    quality: of JPEG and WebP, per cent. text: in a PNG's text chunk `parameters`, else in the EXIF comment; where a
    JPEG has no room for the prompts, the settings alone.
    """
    options: dict[str, object] = {} if form == "png" else {"quality": quality}
    if text and form == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text(KEY, str(text))  # beyond Latin-1 Pillow makes it an international one, iTXt
        options["pnginfo"] = info
    elif text:
        exif = exif_of(str(text))
        if form == "jpeg" and len(exif) > EXIF_BYTES:
            exif = exif_of(str(Parameters("(the prompts are too long for a JPEG's metadata)", "", text.settings)))
        options["exif"] = exif
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, format=form, **options)
    return buffer.getvalue()


def exif_of(comment: str) -> bytes:
    """Return an EXIF block with nothing but a user comment.

    Packed by hand, since Pillow gives the comment the type BYTE, which piexif and so A1111 do not read; EXIF 2.3 has
    UNDEFINED. Big-endian, since readers differ in whether a comment follows the block's order or is always this.
    """
    data = UNICODE + comment.encode("utf-16-be")
    first = struct.pack(">HHHIII", 1, ExifTags.IFD.Exif, LONG, 1, 26, 0)  # one entry: where the other is
    second = struct.pack(">HHHIII", 1, ExifTags.Base.UserComment, UNDEFINED, len(data), 44, 0)
    return b"Exif\0\0" + struct.pack(">2sHI", b"MM", 42, 8) + first + second + data


def parameters_of(data: bytes) -> Parameters | None:
    """Return what a picture file tells of how it was made, or None; `str` of it is the text.

    Raises:
        ValueError: no PNG, JPEG or WebP file, or one whose metadata is broken.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            text = picture.info.get(KEY) or comment_of(picture.getexif())
    except Exception as error:  # of broken bytes Pillow's readers raise whatever they stumble over
        raise ValueError(f"no PNG, JPEG or WebP file can be read from these {len(data)} bytes") from error
    return Parameters.parse(text) if isinstance(text, str) and text else None


def comment_of(exif: Image.Exif) -> str | None:
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if not isinstance(comment, bytes) or not comment.startswith(UNICODE):
        return None
    return comment.removeprefix(UNICODE).decode("utf-16-be" if exif.endian == ">" else "utf-16-le", "replace")
