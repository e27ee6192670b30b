"""An image-caption pair as a source yields it, before anything is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd1b.sizes import Size

LABELS = ("split", "style", "concept", "group", "subgroup", "licence")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One picture with its captions. Everything a source does not say is None."""

    source: str
    key: str
    """Unique within the source; with it, the origin of sample_id."""
    captions: tuple[str, ...]
    image: bytes | None
    """The encoded picture, unless it is only referred to, by path or by URL."""
    path: str | None = None
    """An absolute path at which every node finds the picture, where the manifest should not carry a copy."""
    url: str | None = None
    """Where the picture is fetched from. A pair that still has no image is one that was not wanted."""
    sha256: str | None = None
    """What the source says that the bytes at the URL hash to, in hexadecimal."""
    quadrant: int | None = None
    """0 to 3, row by row: the pair's picture is that quarter of what lies at the URL."""
    declared_size: Size | None = None
    """What the source says about the picture's size: enough to reject it unseen, not to keep it."""
    split: str | None = None
    style: str | None = None
    concept: str | None = None
    group: str | None = None
    subgroup: str | None = None
    licence: str | None = None
    clip_score: float | None = None
    aesthetic: float | None = None
    watermark: float | None = None
    """Probability of a watermark, 0 to 1."""
    unsafe: float | None = None
    """Probability of unsafe content, 0 to 1."""
    language: str | None = None
    regions: tuple[int, ...] | None = None
    """What the caption's phrases mean in the picture, packed as regions.py says."""

    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            OSError: it lies at a path and cannot be read.
        """
        if self.image is not None:
            return self.image
        assert self.path is not None, f"{self.source}/{self.key} has neither image nor path"
        return Path(self.path).read_bytes()


def texts(value: object) -> tuple[str, ...]:
    """Return the captions that a field of unknown origin holds: a text, or the texts of a list."""
    if isinstance(value, str):
        return (value,)
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def labels(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return split, style, concept, group, subgroup and licence of an entry of unknown origin, as text or None."""
    return {field: None if entry.get(field) is None else str(entry[field]) for field in LABELS}
