"""What a picture's first bytes look like, whatever its server calls it."""

MAGIC = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",  # TIFF, little-endian
    b"MM\0*",
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
)
NEEDED = 16
"""Bytes that tell."""


def is_picture(start: bytes) -> bool:
    """Say whether bytes start like a picture that this library decodes. Fewer than 16 bytes are no picture."""
    if len(start) < NEEDED:
        return False
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    if start[4:8] == b"ftyp":
        return start[8:12] in (b"avif", b"avis", b"mif1", b"miaf")
    return start.startswith(MAGIC)
