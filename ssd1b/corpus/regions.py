"""Which part of a picture a phrase of its caption means: GRIT's noun_chunks and ref_exps, packed.

GRIT writes each region as seven doubles: start and end of the phrase in the caption (characters), a box as x1, y1, x2,
y2 in shares of width and height, and the detector's confidence. Here a region is eight 16-bit integers, 16 bytes
instead of 56; a box is exact to 1/65535 of a side. Nothing in this library trains on regions; they are kept because
nobody can get them again once the corpus is a manifest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FIELDS = 8
MOST = 65535
CHUNK, EXPRESSION = 0, 1


@dataclass(frozen=True, kw_only=True)
class Region:
    """One phrase and its box."""

    kind: int
    """CHUNK: a noun with its article. EXPRESSION: the noun with all that is said about it."""
    start: int
    """First character of the phrase in the caption."""
    end: int
    """The character after its last."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in shares of the picture's width and height."""
    confidence: float


def pack(noun_chunks: object, ref_exps: object, caption: str) -> tuple[int, ...] | None:
    """Return the valid regions of a GRIT row, eight integers each, or None where it has none.

    What is no region of this caption is left out: fewer or more than seven numbers, not finite, a phrase outside the
    caption, a box outside the picture or without area. The pair stays, since its caption and picture are whole.
    """
    packed: list[int] = []
    for kind, rows in ((CHUNK, noun_chunks), (EXPRESSION, ref_exps)):
        for row in rows if isinstance(rows, list) else ():
            packed += packed_region(kind, row, len(caption))
    return tuple(packed) or None


def packed_region(kind: int, row: object, characters: int) -> list[int]:
    """Return a region's eight integers, or nothing where it is none."""
    if not isinstance(row, Sequence) or len(row) != 7 or not all(isinstance(value, int | float) for value in row):
        return []
    if not all(math.isfinite(value) for value in row):
        return []
    start, end, *shares = row
    left, top, right, bottom, confidence = shares
    phrase = start == int(start) and end == int(end) and 0 <= start < end <= min(characters, MOST)
    box = 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and 0 <= confidence <= 1
    if not (phrase and box):
        return []
    return [kind, int(start), int(end), *(round(value * MOST) for value in shares)]


def unpack(packed: Sequence[int]) -> list[Region]:
    """Return the regions of a manifest row."""
    return [
        Region(
            kind=packed[i],
            start=packed[i + 1],
            end=packed[i + 2],
            box=(packed[i + 3] / MOST, packed[i + 4] / MOST, packed[i + 5] / MOST, packed[i + 6] / MOST),
            confidence=packed[i + 7] / MOST,
        )
        for i in range(0, len(packed), FIELDS)
    ]
