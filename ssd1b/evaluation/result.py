"""One evaluation as data: every number with its interval, its count, its seeds and who measured it.

`evaluation.json` is this document. Reports are drawn from it; nothing in it is prose except warnings.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssd1b.evaluation.bias import Adherence, Gap, Leak
from ssd1b.evaluation.distances import Distance
from ssd1b.evaluation.extractor import Extractor
from ssd1b.evaluation.measure import Group
from ssd1b.evaluation.seen import Conditions
from ssd1b.recipes.evaluate import Window

SCHEMA = 1
"""Of the document; a change that breaks readers raises it."""


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """One prompt and what became of it."""

    prompt: str
    seed: int
    novelty: str
    style: str
    category: str
    probe: str
    plain: int | None
    """Of a probe: the number of the same prompt without its words."""
    score_teacher: float | None
    """Above chance; None of probes."""
    score_student: float | None
    distance: float | None
    """How far the two models' pictures are apart, one less the cosine of their features."""
    pictures: Mapping[str, str]
    """Model, or "drawing" where the corpus has one -> path of the picture, relative to the document."""


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A number before the window of a published protocol."""

    window: Window
    value: float | None
    """None where it was not measured, for want of the extractor that the protocol names."""

    @property
    def inside(self) -> bool:
        """Whether it was measured and lies in the window."""
        return self.value is not None and self.window.low <= self.value <= self.window.high


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out."""

    numbers: Mapping[str, float]
    """Metrics by name; those over prompts have their 95 % interval beside them as NAME_low and NAME_high."""
    conditions: Mapping[str, Conditions]
    """Of "teacher" and of "student"."""
    extractors: Mapping[str, Extractor]
    """Role -> who measured: "scorer" everything called score, distance and variety, "features" Frechet and KID."""
    groups: tuple[Group, ...]
    distances: Mapping[str, tuple[Distance, ...]]
    """"teacher" and "student" from the drawings or the given moments, "student to teacher" from each other."""
    gaps: tuple[Gap, ...]
    adherence: tuple[Adherence, ...]
    leaks: tuple[Leak, ...]
    windows: tuple[Bounded, ...]
    prompts: tuple[Pictured, ...]

    @property
    def how(self) -> str:
        """Prompts, sampler, seeds and scorer, in words."""
        asked = self.conditions["student"]
        kinds = ", ".join(f"{group.prompts} {group.name}" for group in self.groups if group.by == "novelty")
        first, last = asked.seeds
        seeds = f"seed {first}" if first == last else f"seeds {first} to {last}"
        return (
            f"{kinds} prompts, {asked.steps} steps of {asked.sampler}, guidance {asked.guidance:g}, {seeds}, scored by "
            f"{self.extractors['scorer']}"
        )

    def document(self) -> dict[str, Any]:
        """Return the whole as JSON knows it: what could not be measured is null."""
        told = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for window, bounded in zip(told["windows"], self.windows, strict=True):
            window["inside"] = bounded.inside
        return {name: plain(value) for name, value in told.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {name: plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value
