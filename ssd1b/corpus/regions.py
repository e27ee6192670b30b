"""Which part of a picture a phrase of its caption means: GRIT's noun_chunks and ref_exps, packed.

GRIT writes each region as seven doubles: start and end of the phrase in the caption (characters), a box as x1, y1, x2,
y2 in shares of width and height, and the detector's confidence. Here a region is eight 16-bit integers, 16 bytes
instead of 56; a box is exact to 1/65535 of a side. Nothing in this library trains on regions; they are kept because
nobody can get them again once the corpus is a manifest.

A manifest's captions have single spaces (`filters.clean`), GRIT's have what the web had. A packed phrase counts in the
caption that is stored, and stands for the same words there.
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
    """First character of the phrase in the stored caption."""
    end: int
    """The character after its last."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in shares of the picture's width and height."""
    confidence: float


def pack(noun_chunks: object, ref_exps: object, caption: str) -> tuple[int, ...] | None:
    """Return the valid regions of a GRIT row, eight integers each, or None where it has none.

    `caption` is as the row has it. What is no region of it is left out: fewer or more than seven numbers, not finite, a
    phrase outside the caption or without a word, a box outside the picture or without area. The pair stays, since its
    caption and picture are whole.
    """
    packed: list[int] = []
    for kind, rows in ((CHUNK, noun_chunks), (EXPRESSION, ref_exps)):
        for row in rows if isinstance(rows, list) else ():
            packed += packed_region(kind, row, caption)
    return tuple(packed) or None


def packed_region(kind: int, row: object, caption: str) -> list[int]:
    """Return a region's eight integers, or nothing where it is none."""
    if not isinstance(row, Sequence) or len(row) != 7 or not all(isinstance(value, int | float) for value in row):
        return []
    if not all(math.isfinite(value) for value in row):
        return []
    start, end, *shares = row
    left, top, right, bottom, confidence = shares
    inside = start == int(start) and end == int(end) and 0 <= start < end <= len(caption)
    box = 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and 0 <= confidence <= 1
    if not (inside and box):
        return []
    phrase = clean_phrase(caption, int(start), int(end))
    if phrase is None or phrase[1] > MOST:
        return []
    return [kind, *phrase, *(round(value * MOST) for value in shares)]


def clean_phrase(caption: str, start: int, end: int) -> tuple[int, int] | None:
    """Return where the words of caption[start:end] stand in the caption with single spaces: first and behind the last.

    None where there are no words. Spaces at the phrase's ends are not part of it.
    """
    phrase = caption[start:end]
    first, last = start + len(phrase) - len(phrase.lstrip()), start + len(phrase.rstrip())
    if first >= last:
        return None
    before = " ".join(caption[:first].split())
    apart = bool(before) and caption[first - 1].isspace()  # a phrase can start in mid-word
    return len(before) + apart, len(" ".join(caption[:last].split()))


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
