"""Pictures inside the page: small WebP files as data: addresses."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

QUALITY = 78
"""Of WebP."""
SHEET_PX, LIST_PX = 256, 160
"""Longest side of a picture on the contact sheet, and in the listing."""


@dataclass(frozen=True, kw_only=True)
class Thumb:
    """One picture."""

    href: str
    """data: address."""
    width: int
    height: int
    """Pixels."""


def thumb(folder: Path, path: str, side_px: int) -> Thumb | None:
    """Return a picture of the folder, at its own size or scaled down to a longest side; None where it is not kept.

    Raises:
        ValueError: the path leads out of the folder.
        OSError: the file is no picture.
    """
    place = within(folder, path)
    return encoded(place, side_px) if place.is_file() else None


def within(folder: Path, path: str) -> Path:
    """Return where a path of the document lies.

    Raises:
        ValueError: it leads out of the folder.
    """
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of {folder}: an evaluation's pictures lie beside it")
    return place


def encoded(place: Path, side_px: int) -> Thumb:
    """Return one file as a thumb."""
    with Image.open(place) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    picture.save(held, "WEBP", quality=QUALITY, method=4)
    text = base64.b64encode(held.getvalue()).decode()
    return Thumb(href=f"data:image/webp;base64,{text}", width=picture.width, height=picture.height)


def thumbs(folder: Path, pictures: Mapping[str, str], side_px: int) -> dict[str, Thumb]:
    """Return the thumbs of one prompt, by whose they are; those that are not kept are left out."""
    found = {name: thumb(folder, path, side_px) for name, path in pictures.items()}
    return {name: each for name, each in found.items() if each is not None}
