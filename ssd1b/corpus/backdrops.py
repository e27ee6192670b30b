"""What may lie behind a drawing in place of its white paper, and how it is laid there.

A drawing is cut out along the white that reaches its border, so that white inside it, as of an egg or a milk bottle,
stays. The rim of that white is multiplied with the backdrop, which is exact where a colour was blended with paper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# H W pixels; the last axis holds red, green and blue

PAPER_LEAST = 248
"""A pixel whose darkest channel is at least this bright may be paper."""
RIM_PX = 2
"""How far into the drawing the blend with paper reaches."""
Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """Something behind the object of a picture."""

    phrase: str
    """What a prompt calls it, behind the object and the style."""
    paint: Callable[[int], Picture]
    """Side in pixels -> picture (H, W, 3)."""


def plain(colour: str) -> Callable[[int], Picture]:
    """Paint one colour, "#rrggbb"."""
    return lambda side: np.tile(rgb(colour), (side, side, 1))


def bands(*stops: tuple[float, str]) -> Callable[[int], Picture]:
    """Paint colours from top to bottom, blended between their heights (0 is the top, 1 the bottom)."""

    def paint(side: int) -> Picture:
        at = (np.arange(side) + 0.5) / side
        heights = [height for height, _ in stops]
        channels = [np.interp(at, heights, [rgb(colour)[c] for _, colour in stops]) for c in range(3)]
        column = np.stack(channels, axis=-1).round().astype(np.uint8)
        return np.tile(column[:, None], (1, side, 1))

    return paint


def night(side: int) -> Picture:
    """Paint a dark sky with a moon and stars."""
    sky = bands((0.0, "#101a4a"), (1.0, "#3b3f8f"))(side)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    for top, left, radius in STARS:
        sky[(y - top) ** 2 + (x - left) ** 2 <= radius**2] = rgb("#fff4c2")
    return sky


def rgb(colour: str) -> Picture:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


STARS = (
    (0.12, 0.85, 0.09), (0.10, 0.10, 0.025), (0.30, 0.06, 0.02), (0.06, 0.50, 0.02), (0.45, 0.94, 0.025),
    (0.62, 0.06, 0.025), (0.88, 0.10, 0.02), (0.92, 0.90, 0.025), (0.72, 0.95, 0.02), (0.94, 0.50, 0.02),
)  # fmt: skip
"""Top, left and radius as shares of the side; the first is the moon."""
BACKDROPS: Mapping[str, Backdrop] = {
    **{
        name: Backdrop(phrase=f"on a {name} background", paint=plain(colour))
        for name, colour in (
            ("blue", "#7db8ff"),
            ("green", "#8fd694"),
            ("yellow", "#ffdf6b"),
            ("pink", "#ffa9cb"),
            ("purple", "#b79cf2"),
        )
    },
    "meadow": Backdrop(
        phrase="in a meadow", paint=bands((0.0, "#8fd0ff"), (0.60, "#d9f1ff"), (0.62, "#7cc45a"), (1.0, "#4f9e3f"))
    ),
    "beach": Backdrop(
        phrase="at the beach",
        paint=bands(
            (0.0, "#9adcff"), (0.44, "#d8f3ff"), (0.46, "#2f9fd6"), (0.66, "#5cc3e6"), (0.68, "#f5dfa6"),
            (1.0, "#e6c67c"),
        ),
    ),
    "sunset": Backdrop(
        phrase="at sunset", paint=bands((0.0, "#6a4c93"), (0.45, "#ff7e67"), (0.8, "#ffc15e"), (1.0, "#ffe08a"))
    ),
    "night": Backdrop(phrase="at night", paint=night),
}  # fmt: skip
"""By the name that recipes use."""
PAPER = "white"
"""The backdrop of a drawing as it is."""


def frame_colour(backdrop: Backdrop, side: int = 128) -> str:
    """Return the median colour of the outer eighth, "#rrggbb": what is still to be seen beside an object."""
    ground, edge = backdrop.paint(side), side // 8
    outer = np.ones((side, side), bool)
    outer[edge:-edge, edge:-edge] = False
    return "#" + "".join(f"{round(channel):02x}" for channel in np.median(ground[outer], axis=0))


def paper_of(pixels: Picture) -> NDArray[np.bool_]:
    """Return where the paper shows, boolean (H, W): near-white pixels that are joined to the border by others."""
    bright = pixels.min(axis=-1) >= PAPER_LEAST
    labels, _ = ndimage.label(bright)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(border[border > 0]))


def lay(pixels: Picture, backdrop: Backdrop) -> Picture:
    """Return a square drawing (H, W, 3) on white with the backdrop where its paper was."""
    paper = paper_of(pixels)
    rim = ndimage.binary_dilation(paper, iterations=RIM_PX)
    ground = backdrop.paint(pixels.shape[0])
    blended = (pixels.astype(np.uint16) * ground // 255).astype(np.uint8)
    # deep colours of the rim belong to the drawing: multiplying would darken them, so they stay as they are
    light = pixels.min(axis=-1) >= 128
    laid = np.where((rim & light)[..., None], blended, pixels)
    return np.where(paper[..., None], ground, laid)
