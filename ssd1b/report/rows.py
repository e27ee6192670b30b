"""The parts of a page that have pictures: contact sheet, listing of prompts, pairs of a probe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssd1b.report.choice import Choice
from ssd1b.report.document import Document, Prompt
from ssd1b.report.thumbs import LIST_PX, SHEET_PX, Thumb, thumbs

SIDES: Mapping[str, str] = {"drawing": "corpus", "teacher": "teacher", "student": "student"}
"""Whose pictures there may be, in the order they stand in -> what heads them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt."""

    number: int
    """In the document, from 0."""
    prompt: Prompt
    thumbs: Mapping[str, Thumb]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows with the columns of pictures that any of them has."""

    sides: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One prompt as it was and with a probe's words."""

    plain: Row
    probe: Row


def rows(document: Document, folder: Path, numbers: list[int], side_px: int) -> Rows:
    """Return prompts with their pictures, none of them larger than side_px; 0 leaves pictures out."""
    found = [
        Row(
            number=i, prompt=document.prompts[i],
            thumbs=thumbs(folder, document.prompts[i].pictures, side_px) if side_px else {},
        )
        for i in numbers
    ]  # fmt: skip
    sides = tuple(side for side in SIDES if any(side in row.thumbs for row in found))
    return Rows(sides=sides, rows=tuple(found))


def sheet(document: Document, folder: Path, choice: Choice) -> Rows:
    """Return the contact sheet."""
    return rows(document, folder, list(choice.sheet), SHEET_PX)


def listing(document: Document, folder: Path, choice: Choice) -> Rows:
    """Return the prompts with pictures, worst first."""
    return rows(document, folder, [i for i in choice.ordered if i in choice.pictured], LIST_PX)


def bare(document: Document, folder: Path, choice: Choice) -> Rows:
    """Return the prompts that are listed without pictures, worst first."""
    return rows(document, folder, [i for i in choice.ordered if i not in choice.pictured], 0)


def pairs(document: Document, folder: Path, choice: Choice) -> list[Pair]:
    """Return some prompts with and without each probe's words."""
    found = [rows(document, folder, list(reversed(pair)), LIST_PX).rows for pair in choice.probes]
    return [Pair(plain=plain, probe=probe) for plain, probe in found]
