"""What an interruption cost a run, read from what its workers noted: steps, samples and seconds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssd1b.elastic.feed import attempts
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order
from ssd1b.training import journal


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """One interruption and how the run went on."""

    event: str
    workers: tuple[int, int]
    """Before and after."""
    steps_lost: int
    """Begun before, and begun again after."""
    seconds: float
    """From the event to the end of the first step of the group that went on."""
    noticed_s: float
    """Of these, until the next group was decided on and its processes started."""
    phases: Mapping[str, float]
    """Of these, what the next group's first worker spent on what."""
    starts: int
    """Groups that were started until one took a step; 1 is the least."""
    first_step: int
    """Where the run went on."""


def steps_lost(root: Path, after: int) -> int:
    """Return how many steps that were begun before start number `after` (counted from 0) that start begins again."""
    first = attempts(root)[after].first_step
    begun = {
        step
        for path in (root / "consumed").glob("*.jsonl")
        if int(path.stem.partition("-")[0]) < after
        for step, _ in journal.steps_of(path)
    }
    return max(0, max(begun, default=-1) + 1 - first)


def twice_and_never(root: Path, order: Order, latents: Latents, steps: range) -> tuple[int, int]:
    """Return how many samples the steps of a range met more often than the order says, and how many less often."""
    met: dict[int, Counter[journal.Pass]] = {step: Counter() for step in steps}
    last = max(start.first_step for start in attempts(root)) + len(steps)
    for step, here in journal.surviving(root, max(steps.stop, last), []):
        if step in met:
            met[step] += here
    twice = never = 0
    for step in steps:
        expected = Counter(journal.held_by(order, latents, step))
        twice += (met[step] - expected).total()
        never += (expected - met[step]).total()
    return twice, never


def table(rows: list[dict[str, str]]) -> list[str]:
    """Return lines of columns, each as wide as it must be; the first of a row is text, the others are figures."""
    first, *figures = list(rows[0])
    width = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in rows[0]}, *rows]
    return [
        "  ".join([line[first].ljust(width[first]), *(line[name].rjust(width[name]) for name in figures)])
        for line in lines
    ]
