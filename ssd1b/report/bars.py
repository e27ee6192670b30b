"""Intervals as small drawings: where each end falls on a scale that all rows of a table share."""

from collections.abc import Iterable
from dataclasses import dataclass

from ssd1b.report.document import Number

WIDTH = 120.0
"""Of a bar's drawing, in its own units."""
EDGE = 5.0
"""Room left and right of the scale, so that a point at its end is not cut."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One interval and its point, in units of the drawing."""

    x: float
    low: float
    high: float
    open: bool
    """Whether there is no interval, so that the point does not say how sure it is."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The values at the left and right end of every bar of a column."""

    start: float
    end: float

    @staticmethod
    def of(numbers: Iterable[Number], *also: float) -> "Scale":
        """Return the scale that holds all values, all ends of intervals and further values."""
        held = [*also, *(at for each in numbers for at in (each.value, each.low, each.high) if at is not None)]
        if not held:
            return Scale(start=0, end=1)
        start, end = min(held), max(held)
        return Scale(start=start, end=end) if end > start else Scale(start=start - 0.5, end=end + 0.5)

    def at(self, value: float) -> float:
        """Return the place of a value."""
        share = (value - self.start) / (self.end - self.start)
        return round(EDGE + share * (WIDTH - 2 * EDGE), 1)

    def bar(self, of: Number | None) -> Bar | None:
        """Return the bar of a number; None where there is nothing to draw."""
        if of is None or of.value is None:
            return None
        ends = [of.value if end is None else end for end in (of.low, of.high)]
        return Bar(x=self.at(of.value), low=self.at(ends[0]), high=self.at(ends[1]), open=None in (of.low, of.high))
