"""The report of jobs.ingest as one picture: what became of the rows, which sizes are left, how kept and lost look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssd1b.corpus.charts import (
    INK,
    LABEL_PX,
    MUTED,
    PAPER,
    Box,
    bars,
    count,
    fitted,
    font,
    funnel,
    histogram,
    share,
    tile,
)
from ssd1b.corpus.legible import legible

# N kept rows

WIDTH = 1600
MARGIN = 48
COLUMNS = 8
GAP = 14
TILE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
TEXT_LINES = 3
LINE = 18
"""Pixels from one line of text to the next."""
SIDES = ((64, "64"), (128, "128"), (256, "256"), (512, "512"), (1024, "1024"), (2048, "2048"), (4096, "4096 px"))
ASPECTS = ((0.25, "1:4"), (0.5, "1:2"), (0.75, "3:4"), (1.0, "1:1"), (4 / 3, "4:3"), (2.0, "2:1"), (4.0, "4:1"))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One example."""

    picture: Image.Image | None
    text: str
    name: str = ""
    """What is written below the text, in fainter ink."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the sheet shows."""

    title: str
    subtitle: str
    rows_in: int
    left_out: Mapping[str, int]
    """Rows by reason, not_selected among them; with the kept rows they make rows_in."""
    buckets: Mapping[str, int]
    """Kept rows by bucket."""
    height_N: NDArray[np.int64]
    """Of the kept rows, or of an even sample of those with a size, pixels."""
    width_N: NDArray[np.int64]
    kept: Sequence[Shown]
    lost: Mapping[str, Sequence[Shown]]
    """Examples by reason."""


def draw(report: Report) -> Image.Image:
    """Return the sheet, 1600 pixels wide and as high as it needs to be."""
    lost = [reason for reason in report.left_out if report.lost.get(reason)]
    chart_height = max(30 * (len(report.left_out) + 2), 520)
    kept_rows = -(-len(report.kept) // COLUMNS)
    tile_height = TILE + 5 + 15 * TEXT_LINES + 12
    kept_height = kept_rows * tile_height if seen(report.kept) else LINE * len(report.kept) + 20
    height = 130 + chart_height + 70 + kept_height + sum(lost_height(report.lost[r]) for r in lost) + 90
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 32), report.title, INK, font(30, bold=True))
    pen.text((MARGIN, 76), report.subtitle, MUTED, font(LABEL_PX + 1))
    top = charts(pen, report, 130, chart_height)
    top = heading(pen, f"A sample of the {count(rows_kept(report))} kept rows", top + 10)
    if seen(report.kept):
        for i, shown in enumerate(report.kept):
            example(sheet, shown, i % COLUMNS, top + i // COLUMNS * tile_height)
    else:
        lines(pen, report.kept, top)
    top += kept_height
    if lost:
        top = heading(pen, "A sample of what was left out", top)
    for reason in lost:
        pen.text((MARGIN, top), reason, INK, font(LABEL_PX, bold=True))
        rows = report.left_out[reason]
        told = f"{count(rows)} {'row' if rows == 1 else 'rows'}, {share(rows, report.rows_in)}"
        pen.text((MARGIN + font(LABEL_PX, bold=True).getlength(reason) + 14, top), told, MUTED, font(LABEL_PX))
        examples(sheet, report.lost[reason], top + 24)
        top += lost_height(report.lost[reason])
    return sheet


def charts(pen: ImageDraw.ImageDraw, report: Report, top: int, height: int) -> int:
    """Draw the funnel on the left, sizes, aspects and buckets on the right; return where the next part may begin."""
    left_width, right = 860, MARGIN + 860 + 64
    right_width = WIDTH - MARGIN - right
    heading(pen, "What became of every row", top, MARGIN)
    lines = len(report.left_out) + 2
    body = Box(MARGIN, top + 40, left_width, lines * min(34, (height - 40) // lines))
    funnel(pen, body, report.rows_in, report.left_out)
    short_N = np.minimum(report.height_N, report.width_N).astype(np.float64)
    third = (height - 40) // 3
    sizes, kept = len(report.height_N), rows_kept(report)
    of_which = "the kept" if sizes == kept else f"{count(sizes)} of the kept"
    heading(pen, f"Shorter side of {of_which}", top, right)
    histogram(pen, Box(right, top + 30, right_width, third - 30), short_N, SIDES)
    heading(pen, f"Width to height of {of_which}", top + third + 10, right)
    histogram(pen, Box(right, top + third + 40, right_width, third - 30), report.width_N / report.height_N, ASPECTS)
    heading(pen, "Kept rows by bucket", top + 2 * third + 20, right)
    bars(pen, Box(right, top + 2 * third + 54, right_width, height - 2 * third - 54), report.buckets)
    return top + height


def heading(pen: ImageDraw.ImageDraw, text: str, top: int, left: int = MARGIN) -> int:
    pen.text((left, top), text, INK, font(17, bold=True))
    return top + 38


def rows_kept(report: Report) -> int:
    return report.rows_in - sum(report.left_out.values())


def seen(shown: Sequence[Shown]) -> bool:
    """Say whether there is a picture to show."""
    return any(each.picture for each in shown)


def lost_height(shown: Sequence[Shown]) -> int:
    """Return how high the examples of a reason are: a row of small tiles, or lines of text where none has a picture."""
    if seen(shown):
        return 24 + TILE * 3 // 4 + 5 + 15 * TEXT_LINES + 20
    return 24 + LINE * min(len(shown), TEXT_LINES) + 20


def examples(sheet: Image.Image, shown: Sequence[Shown], top: int) -> None:
    if seen(shown):
        for i, each in enumerate(sorted(shown, key=lambda each: each.picture is None)[:COLUMNS]):
            example(sheet, each, i, top, TILE * 3 // 4)
    else:
        lines(ImageDraw.Draw(sheet), shown[:TEXT_LINES], top)


def lines(pen: ImageDraw.ImageDraw, shown: Sequence[Shown], top: int) -> None:
    """Draw examples without a picture, one a line."""
    for i, each in enumerate(shown):
        told = " · ".join(part for part in (each.text, each.name) if part)
        text = "".join(fitted(legible(told), LABEL_PX - 2, WIDTH - 2 * MARGIN))
        pen.text((MARGIN, top + LINE * i), text, MUTED, font(LABEL_PX - 2))


def example(sheet: Image.Image, shown: Shown, column: int, top: int, height: int = TILE) -> None:
    text = fitted(legible(shown.text), LABEL_PX - 3, TILE, TEXT_LINES - bool(shown.name))
    names = fitted(legible(shown.name), LABEL_PX - 3, TILE)
    tile(sheet, Box(MARGIN + column * (TILE + GAP), top, TILE, height), shown.picture, text, names)
