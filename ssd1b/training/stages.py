"""The schedule of progressive distillation as data: what is carved when, under which teacher, for how many steps.

The student of a stage starts from the student of the stage before. A checkpoint of step s holds the student that steps
below s trained; carving happens on entering a stage, so a checkpoint at a boundary is the earlier stage's result.
"""

import math
from dataclasses import dataclass

from ssd1b.family.keep import PARTS
from ssd1b.recipes.distill import Stage


@dataclass(frozen=True)
class Place:
    """Where in the schedule a step lies."""

    index: int
    stage: Stage
    step: int
    """Within the stage, from 0."""

    @property
    def last(self) -> bool:
        """Is this the last step of the stage?"""
        return self.step + 1 == self.stage.steps


def check(stages: tuple[Stage, ...]) -> None:
    """Raise ValueError if the schedule cannot be followed."""
    if not stages:
        raise ValueError("the schedule has no stages: give at least one")
    parts = [part for stage in stages for part in stage.carve]
    if twice := sorted({part for part in parts if parts.count(part) > 1}):
        raise ValueError(f"{', '.join(twice)} would be carved in two stages: carve each part once")
    names = [stage.name for stage in stages]
    for stage in stages:
        if names.count(stage.name) > 1:
            raise ValueError(f"two stages are called {stage.name!r}: results are kept by name, so name them apart")
        for part in stage.carve:
            if part not in PARTS:
                raise ValueError(f"stage {stage.name!r} carves {part!r}: choose from {', '.join(PARTS)}")
        if stage.steps < 1:
            raise ValueError(f"stage {stage.name!r} has {stage.steps} steps: give it at least 1, or leave it out")


def total_steps(stages: tuple[Stage, ...]) -> int:
    """Return the number of optimizer steps of the schedule."""
    return sum(stage.steps for stage in stages)


def place(stages: tuple[Stage, ...], step: int) -> Place:
    """Return where a step, counted from 0, lies."""
    assert 0 <= step < total_steps(stages), step
    for index, stage in enumerate(stages):
        if step < stage.steps:
            return Place(index, stage, step)
        step -= stage.steps
    raise AssertionError


def carved_before(stages: tuple[Stage, ...], step: int) -> tuple[str, ...]:
    """Return the parts that are gone from a checkpoint of this step, in order."""
    return () if step == 0 else carved_by(stages, place(stages, step - 1).index)


def carved_by(stages: tuple[Stage, ...], index: int) -> tuple[str, ...]:
    """Return the parts that are gone while a stage is trained, in order."""
    return tuple(part for stage in stages[: index + 1] for part in stage.carve)


def lr_at(stage: Stage, step: int) -> float:
    """Return the learning rate of a step of a stage: linear warm-up, then a cosine to the final share."""
    if step < stage.warmup_steps:
        return stage.lr * (step + 1) / stage.warmup_steps
    progress = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    fall = (1 - stage.final_lr_share) * (1 - math.cos(math.pi * progress)) / 2
    return stage.lr * (1 - fall)
