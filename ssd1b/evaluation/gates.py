"""Gates: may this model version serve? Pure decisions over recorded numbers; moving the alias is the caller's.

The score has two gates, as in a non-inferiority trial. The estimate must reach the threshold; and the lower end of its
95 % interval must not lie below the threshold by more than a margin. Few prompts make a wide interval, so luck with few
prompts fails the second gate, which then says how many prompts would settle it; more prompts narrow the interval, so
noise cannot refuse for ever a model that is good enough.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ssd1b.evaluation.seen import Conditions, unlike
from ssd1b.recipes.promote import Thresholds

MEASURE = "run `python -m jobs.evaluate` again"


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
    score = "score_kept" if thresholds.prompts == "all" else "heldout_score_kept"
    prompts = "prompts" if thresholds.prompts == "all" else "heldout_prompts"
    needed = (score, f"{score}_low", prompts, "parameters_ratio", "step_speedup", "distance_ratio")
    if missing := [name for name in needed if name not in numbers]:
        raise ValueError(f"the evaluation lacks {', '.join(missing)}: {MEASURE}")

    def value(name: str) -> float:
        return math.nan if (found := numbers[name]) is None else found

    def gate(name: str, threshold: float, at_least: bool) -> Gate:
        return Gate(name=name, value=value(name), threshold=threshold, at_least=at_least, note=interval(numbers, name))

    floor = thresholds.score_kept - thresholds.score_margin
    return [
        Gate(
            name="score_kept", value=value(score), threshold=thresholds.score_kept, at_least=True,
            note=interval(numbers, score),
        ),
        Gate(
            name="score_kept_low", value=value(f"{score}_low"), threshold=floor, at_least=True,
            note=settled(value(score), value(f"{score}_low"), floor, value(prompts)),
        ),
        gate("parameters_ratio", thresholds.parameters_ratio, False),
        gate("step_speedup", thresholds.step_speedup, True),
        gate("distance_ratio", thresholds.distance_ratio, False),
    ]  # fmt: skip


def settled(estimate: float, low: float, floor: float, prompts: float) -> str:
    """Say with how many prompts an interval that now reaches below the floor would lie above it.

    An interval is as wide as one over the square root of the number of prompts.
    """
    if math.isnan(prompts):
        return "(lower end of the 95 % interval)"
    if math.isnan(low) or math.isnan(estimate) or low >= floor:
        return f"(lower end of the 95 % interval over {prompts:.0f} prompts)"
    if estimate <= floor:
        return f"(lower end of the 95 % interval over {prompts:.0f} prompts; more of them would not change it)"
    enough = math.ceil(prompts * ((estimate - low) / (estimate - floor)) ** 2)
    return f"(lower end of the 95 % interval over {prompts:.0f} prompts; if the score stays, about {enough:,} would do)"


def refuse_unlike_conditions(conditions: Mapping[str, Conditions], scorer: str = "") -> None:
    """Let numbers decide only if teacher and student were measured alike, by the extractor thresholds are for.

    Raises:
        ValueError: they were not; what differs is named.
    """
    if missing := [name for name in ("teacher", "student") if name not in conditions]:
        raise ValueError(f"the evaluation does not say how {' and '.join(missing)} was measured: {MEASURE}")
    teacher, student = conditions["teacher"], conditions["student"]
    if differences := unlike(teacher, student):
        raise ValueError(f"teacher and student were measured under unlike {', '.join(differences)}: {MEASURE}")
    measured_by = student.scorer.partition("/")[0]
    if scorer and measured_by != scorer:
        raise ValueError(
            f"the evaluation is by the scorer {measured_by!r} and the thresholds are for {scorer!r}: evaluate with "
            f"that, or promote with thresholds chosen for {measured_by!r} and --set scorer={measured_by}"
        )


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
