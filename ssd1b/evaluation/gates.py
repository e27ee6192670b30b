"""Gates: may this model version serve? Pure decisions over recorded numbers; moving the alias is the caller's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ssd1b.recipes.promote import Thresholds


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition, what was measured, and whether it holds."""

    name: str
    value: float
    threshold: float
    at_least: bool
    """Whether the value must be at least the threshold, or else at most."""
    note: str = ""
    """What else a reader should know, for example the interval."""

    @property
    def passes(self) -> bool:
        """NaN never passes."""
        return self.value >= self.threshold if self.at_least else self.value <= self.threshold

    @property
    def message(self) -> str:
        """Say by how much it holds or fails."""
        rule = f"{'at least' if self.at_least else 'at most'} {self.threshold:.3g}"
        note = f" {self.note}" if self.note else ""
        if math.isnan(self.value):
            return f"{self.name} fails: it could not be measured{note}, must be {rule}"
        verdict = "holds" if self.passes else "fails"
        return (
            f"{self.name} {verdict} by {abs(self.value - self.threshold):.3g}: {self.value:.3g}{note}, must be {rule}"
        )


def decide(numbers: Mapping[str, float | None], thresholds: Thresholds) -> list[Gate]:
    """Return every gate of an evaluation's numbers; None is what could not be measured.

    Raises:
        ValueError: the evaluation lacks a number that a gate needs.
    """
    rules = (
        ("score_kept", thresholds.score_kept, True),
        ("parameters_ratio", thresholds.parameters_ratio, False),
        ("step_speedup", thresholds.step_speedup, True),
        ("distance_ratio", thresholds.distance_ratio, False),
    )
    if missing := [name for name, _, _ in rules if name not in numbers]:
        raise ValueError(f"the evaluation lacks {', '.join(missing)}: run `python -m jobs.evaluate` again")
    return [
        Gate(
            name=name,
            value=math.nan if (value := numbers[name]) is None else value,
            threshold=threshold,
            at_least=at_least,
            note=interval(numbers, name),
        )
        for name, threshold, at_least in rules
    ]


def interval(numbers: Mapping[str, float | None], name: str) -> str:
    """Return "(95 %: low to high)" where the evaluation gives an interval.

    A ratio to a teacher that is not clearly above chance has an unbounded one, which is recorded as None.
    """
    if f"{name}_low" not in numbers:
        return ""
    low, high = numbers[f"{name}_low"], numbers[f"{name}_high"]
    if low is None or high is None:
        return "(95 %: unbounded, there is too little to compare with)"
    return f"(95 %: {low:.3g} to {high:.3g})"
