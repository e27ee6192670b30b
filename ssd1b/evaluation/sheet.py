"""Contact sheets: pictures in a grid with words beside them, prompts down and models across."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TEXT_PX = 15
LINE_PX = 19
GAP_PX = 8
LABEL_PX = 190
"""Width of the words left of each row."""
LABEL_CHARACTERS = 24
INK, PAPER = "#1a1a1a", "#ffffff"


def sheet(
    rows: Sequence[str], columns: Sequence[str], pictures: Sequence[Sequence[Image.Image]], side: int = 128
) -> Image.Image:
    """Return one picture of all pictures, each fitted into `side` x `side` pixels; pictures[r][c].

    Words are wrapped; a column's words may hold line breaks.

    Raises:
        ValueError: the pictures are not one row for each row and one column for each column.
    """
    if [len(row) for row in pictures] != [len(columns)] * len(rows):
        raise ValueError(f"{len(rows)} x {len(columns)} words, but rows of {[len(row) for row in pictures]} pictures")
    font = ImageFont.load_default(size=TEXT_PX)  # ships with Pillow
    heads = [wrapped(text, max(side // 8, 8)) for text in columns]
    head_px = LINE_PX * max((text.count("\n") + 1 for text in heads), default=0) + 2 * GAP_PX
    step = side + GAP_PX
    canvas = Image.new("RGB", (LABEL_PX + step * len(columns) + GAP_PX, head_px + step * len(rows)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for c, text in enumerate(heads):
        middle = LABEL_PX + c * step + side // 2
        draw.multiline_text((middle, head_px - GAP_PX), text, INK, font, anchor="md", align="center", spacing=3)
    for r, (text, row) in enumerate(zip(rows, pictures, strict=True)):
        top = head_px + r * step
        label = wrapped(text, LABEL_CHARACTERS)
        draw.multiline_text((GAP_PX, top + side // 2), label, INK, font, anchor="lm", spacing=3)
        for c, picture in enumerate(row):
            fitted = fit(picture, side)
            left = LABEL_PX + c * step + (side - fitted.width) // 2
            canvas.paste(fitted, (left, top + (side - fitted.height) // 2))
    return canvas


def wrapped(text: str, characters: int) -> str:
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, characters) or [""])


def fit(picture: Image.Image, side: int) -> Image.Image:
    """Scale a picture so that its longer side is `side` pixels."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.convert("RGB")
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
