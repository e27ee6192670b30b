"""Training curves as drawings: where every point, tick and line falls. No drawing library and no pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ssd1b.report import words
from ssd1b.report.curves import Curve, Point

WIDTH, HEIGHT = 560.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 10.0, 30.0
"""Margins, in units of the drawing."""
MOST = 240
"""Points of a line; of more, the means of equal stretches are drawn."""
DECADES = 1.3
"""From how many powers of ten on an axis is logarithmic."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve."""

    name: str
    points: str
    """As SVG's polyline takes them."""
    first: str
    last: str
    """Values at both ends, in words."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One stage's drawing."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    logarithmic: bool
    steps: int
    """The last step that is drawn."""


def plot(title: str, curves: Sequence[Curve]) -> Plot | None:
    """Return the drawing of one stage's curves on common axes; None where they hold no finite point."""
    kept = {curve.name: thinned([point for point in curve.points if math.isfinite(point.value)]) for curve in curves}
    drawn = {name: points for name, points in kept.items() if points}
    if not drawn:
        return None
    everything = [point for points in drawn.values() for point in points]
    lowest, highest = min(point.value for point in everything), max(point.value for point in everything)
    logarithmic = lowest > 0 and math.log10(highest / lowest) > DECADES
    last = max(point.step for point in everything)
    places = decades(lowest, highest) if logarithmic else nice(lowest, highest)
    bottom, top = min(lowest, *places), max(highest, *places)

    def across(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1), 1)

    def up(value: float) -> float:
        a, b, at = (math.log10(each) if logarithmic else each for each in (bottom, top, value))
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - (at - a) / ((b - a) or 1)), 1)

    return Plot(
        title=title,
        lines=tuple(
            Line(
                name=name, points=" ".join(f"{across(point.step)},{up(point.value)}" for point in points),
                first=words.number(points[0].value), last=words.number(points[-1].value),
            )
            for name, points in drawn.items()
        ),
        across=tuple(Tick(at=across(step), label=f"{step:,.0f}") for step in nice(0, last) if step <= last),
        up=tuple(Tick(at=up(value), label=words.number(value)) for value in places),
        logarithmic=logarithmic,
        steps=last,
    )  # fmt: skip


def thinned(points: Sequence[Point]) -> list[Point]:
    """Return the points in the order of their steps, as means of equal stretches where there are too many."""
    held = sorted(points, key=lambda point: point.step)
    if len(held) <= MOST:
        return held
    edges = [i * len(held) // MOST for i in range(MOST + 1)]
    stretches = [held[start:end] for start, end in pairwise(edges)]
    return [
        Point(step=each[-1].step, value=sum(point.value for point in each) / len(each)) for each in stretches
    ]  # fmt: skip


def nice(low: float, high: float, count: int = 4) -> list[float]:
    """Return about that many round numbers, the first at or below low, the last at or above high."""
    span = (high - low) or abs(high) or 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten around both ends."""
    return [10.0**i for i in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
