"""What is shown on the way: after which steps, and how a few pixels become a picture."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssd1b.sizes import Size

# H W height and width in pixels, 3 red green blue

PROGRESS_S = 0.25
"""Least time between two reports of progress."""


def preview_steps(steps: int, previews: int) -> tuple[int, ...]:
    """Return after which steps, counted from 1, a picture is shown: evenly spread, never the first nothing or the last.

    Fewer than asked for where there are not enough steps between.
    """
    evenly = (-(-steps * (i + 1) // (previews + 1)) for i in range(previews))
    return tuple(sorted({step for step in evenly if 1 <= step < steps}))


def enlarged(pixels_HW3: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return a preview, of one pixel a latent position, at the size of the picture."""
    return np.asarray(Image.fromarray(pixels_HW3).resize((size.width, size.height), Image.Resampling.BICUBIC))


class Pacer:
    """Says when it is time for the next report of progress."""

    def __init__(self, every_s: float = PROGRESS_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._last = -float("inf")

    def due(self) -> bool:
        """Return whether enough time has gone by since it last said so."""
        now = self._clock()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True
