"""Contact sheets: every picture in its place, words beside them."""

import numpy as np
import pytest
from PIL import Image

from ssd1b.evaluation.sheet import GAP_PX, LABEL_PX, sheet


def plain(colour: str, size: tuple[int, int] = (128, 128)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_each_picture_stands_in_its_row_and_column() -> None:
    colours = [["#ff0000", "#00ff00"], ["#0000ff", "#ff00ff"], ["#00ffff", "#ffff00"]]
    made = sheet(["a", "b", "c"], ["teacher", "student"], [[plain(colour) for colour in row] for row in colours])
    step, top = 128 + GAP_PX, made.height - 3 * (128 + GAP_PX)
    for r, row in enumerate(colours):
        for c, colour in enumerate(row):
            at = (LABEL_PX + c * step + 64, top + r * step + 64)
            assert made.getpixel(at) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_words_are_drawn_in_their_own_space() -> None:
    long = "a very long prompt that must be wrapped into several lines, soft cartoon style"
    with_words = np.asarray(sheet([long], ["teacher\n8.05 M"], [[plain("white")]]))
    without = np.asarray(sheet([""], [""], [[plain("white")]]).convert("RGB"))
    assert (with_words < 100).any()
    assert (without == 255).all()
    columns = np.flatnonzero((with_words[-128:] < 100).any((0, 2)))
    assert columns.max() < LABEL_PX, "the prompt runs into the pictures"


def test_pictures_of_any_shape_are_fitted() -> None:
    made = sheet(["a"], ["wide", "small"], [[plain("black", (300, 100)), plain("black", (16, 16))]], side=64)
    pixels = np.asarray(made.convert("L"))[-64 - GAP_PX :, LABEL_PX:]
    assert (pixels[:, :64] < 10).sum() == pytest.approx(64 * 21, abs=70)
    assert (pixels[:, 64 + GAP_PX : 128 + GAP_PX] < 10).sum() == 64 * 64


def test_a_missing_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="rows of"):
        sheet(["a", "b"], ["x", "y"], [[plain("red")] * 2, [plain("red")]])
