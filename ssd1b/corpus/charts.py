"""Bars, histograms and tiles drawn on a picture: what the report of jobs.ingest is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, MUTED, FAINT, PAPER = "#1f2933", "#6b7785", "#e6e9ed", "#ffffff"
KEPT, LOST, PLAIN = "#2f9e6e", "#e4572e", "#3f74b5"
LABEL_PX = 14


@lru_cache(maxsize=16)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with MLflow by way of matplotlib and looks the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


@dataclass(frozen=True)
class Box:
    """A part of the sheet, pixels from its left and top."""

    left: int
    top: int
    width: int
    height: int


def fitted(text: str, size: int, width: int, lines: int = 1) -> list[str]:
    """Return the text in so many lines of a width in pixels, the last one with dots where more would come."""
    words = text.split()
    found: list[str] = []
    while words and len(found) < lines:
        last = len(found) == lines - 1
        count = max((n for n in range(1, len(words) + 1) if reach(" ".join(words[:n]), size) <= width), default=1)
        line, words = " ".join(words[:count]), words[count:]
        if (last and words) or reach(line, size) > width:
            while line and reach(f"{line}…", size) > width:
                line = line[:-1]
            line = f"{line.rstrip()}…"
        found.append(line)
    return found


def reach(text: str, size: int) -> float:
    """Return how many pixels wide a text is."""
    return font(size).getlength(text)


def count(number: float) -> str:
    return f"{number:,.0f}"


def share(part: float, whole: float) -> str:
    """Return a percentage that does not call a few rows of many none."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def funnel(draw: ImageDraw.ImageDraw, box: Box, rows_in: int, left_out: Mapping[str, int]) -> None:
    """Draw a bar for all rows, one for each reason with what is left after it, and one for the kept."""
    line = box.height // (len(left_out) + 2)
    label_width, number_width = 190, 150
    full = box.width - label_width - number_width

    def row(i: int, label: str, before: int, after: int, number: str, colour: str) -> None:
        top, thick = box.top + i * line, min(line - 8, 20)
        middle = top + thick // 2
        draw.text((box.left + label_width - 12, middle), label, INK, font(LABEL_PX), anchor="rm")
        start = box.left + label_width
        x0, x1 = start + round(full * after / rows_in), start + round(full * before / rows_in)
        draw.rectangle((start, top, start + full, top + thick), FAINT)
        if x0 > start:
            draw.rectangle((start, top, x0, top + thick), KEPT if colour == KEPT else "#b9c4d0")
        if before > after:
            draw.rectangle((min(x0, x1 - 3), top, x1, top + thick), colour)  # three pixels at least
        draw.text((box.left + box.width, middle), number, INK, font(LABEL_PX), anchor="rm")

    row(0, "rows in", rows_in, rows_in, count(rows_in), KEPT)
    now = rows_in
    for i, (reason, lost) in enumerate(left_out.items(), start=1):
        colour = MUTED if reason == "not_selected" else LOST
        row(i, reason, now, now - lost, f"− {count(lost)}   {share(lost, rows_in):>7}", colour)
        now -= lost
    row(len(left_out) + 1, "kept", now, now, f"{count(now)}   {share(now, rows_in):>7}", KEPT)


def bars(draw: ImageDraw.ImageDraw, box: Box, counts: Mapping[str, int]) -> None:
    """Draw one horizontal bar for each name."""
    line = min(24, box.height // max(len(counts), 1))
    most = max(counts.values(), default=1)
    label_width, number_width = 110, 90
    full = box.width - label_width - number_width
    for i, (name, number) in enumerate(counts.items()):
        top, thick = box.top + i * line, line - 7
        middle = top + thick // 2
        draw.text((box.left + label_width - 12, middle), name, INK, font(LABEL_PX - 1), anchor="rm")
        start = box.left + label_width
        draw.rectangle((start, top, start + max(1, round(full * number / most)), top + thick), PLAIN)
        draw.text((box.left + box.width, middle), count(number), INK, font(LABEL_PX - 1), anchor="rm")


def histogram(
    draw: ImageDraw.ImageDraw, box: Box, value_N: NDArray[np.float64], ticks: Sequence[tuple[float, str]]
) -> None:
    """Draw how often values occur, on a logarithmic axis from the first tick to the last; what is beyond goes there."""
    low, high = np.log(ticks[0][0]), np.log(ticks[-1][0])
    cells = max(1, box.width // 12)
    place_N = np.clip((np.log(value_N) - low) / (high - low) * cells, 0, cells - 1).astype(np.int64)
    in_cell = np.bincount(place_N, minlength=cells)
    floor, tall = box.top + box.height - 24, box.height - 40
    for cell in np.flatnonzero(in_cell).tolist():
        left = box.left + cell * box.width // cells
        right = box.left + (cell + 1) * box.width // cells - 2
        draw.rectangle((left, floor - max(2, round(tall * in_cell[cell] / in_cell.max())), right, floor - 1), PLAIN)
    draw.line((box.left, floor, box.left + box.width, floor), MUTED)
    draw.text(
        (box.left + box.width, box.top), f"tallest {count(in_cell.max())}", MUTED, font(LABEL_PX - 2), anchor="ra"
    )
    for value, name in ticks:
        x = box.left + round((np.log(value) - low) / (high - low) * box.width)
        draw.line((x, floor, x, floor + 4), MUTED)
        draw.text((x, floor + 6), name, MUTED, font(LABEL_PX - 2), anchor="ma")


def tile(sheet: Image.Image, box: Box, picture: Image.Image | None, lines: Sequence[str], names: Sequence[str]) -> None:
    """Draw a picture as large as the box allows; below the box its lines of text, and its names in fainter ink."""
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((box.left, box.top, box.left + box.width - 1, box.top + box.height - 1), FAINT)
    if picture is None:
        middle = (box.left + box.width // 2, box.top + box.height // 2)
        draw.text(middle, "no picture", MUTED, font(LABEL_PX - 2), anchor="mm")
    else:
        scale = min(box.width / picture.width, box.height / picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        small = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(small, (box.left + (box.width - size[0]) // 2, box.top + (box.height - size[1]) // 2))
    inked = [(line, INK) for line in lines] + [(name, MUTED) for name in names]
    for i, (line, ink) in enumerate(inked):
        draw.text((box.left, box.top + box.height + 5 + 15 * i), line, ink, font(LABEL_PX - 3))
