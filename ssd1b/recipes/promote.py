"""Which version becomes champion, and what it must hold for that."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a student must hold against its teacher."""

    score_kept: float = 0.97
    """Least share of the teacher's image-text score above chance, over all prompts."""
    parameters_ratio: float = 0.60
    """Greatest share of the teacher's UNet parameters."""
    step_speedup: float = 1.3
    """Least ratio of the teacher's time for a denoising step to the student's."""
    distance_ratio: float = 0.75
    """Greatest distance between the two models' pictures of one prompt and seed, as a share of unrelated pictures'."""


@dataclass(frozen=True, kw_only=True)
class Promote:
    """One run of jobs.promote."""

    name: str
    """Registered model."""
    thresholds: Thresholds
    candidate: str = "candidate"
    """Alias of the version that wants to serve."""
    champion: str = "champion"
    """Alias that serving follows."""


def nano() -> Promote:
    """The nano student. Its score comes from 48 prompts, which leave an interval of about a tenth to either side."""
    return Promote(name="ssd1b-nano", thresholds=Thresholds(score_kept=0.9))


RECIPES: dict[str, Callable[[], Promote]] = {"nano": nano}
