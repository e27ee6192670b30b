"""Which version becomes champion, and what it must hold for that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a student must hold against its teacher."""

    prompts: Literal["heldout", "all"] = "heldout"
    """Whose scores count: those of prompts that hold out an object or a combination, or of all prompts."""
    score_kept: float = 0.97
    """Least share of the teacher's image-text score above chance."""
    score_margin: float = 0.03
    """How far below that the lower end of the 95 % interval may lie. A model that keeps this much less than asked for
    is let through by luck once in 40 times at most, whatever the number of prompts."""
    parameters_ratio: float = 0.52
    """Greatest share of the teacher's UNet parameters."""
    step_speedup: float = 1.5
    """Least ratio of the teacher's time for a denoising step to the student's."""
    distance_ratio: float = 0.75
    """Greatest distance between the two models' pictures of one prompt and seed, as a share of unrelated pictures'."""


@dataclass(frozen=True, kw_only=True)
class Promote:
    """One run of jobs.promote."""

    name: str
    """Registered model."""
    thresholds: Thresholds
    scorer: str = ""
    """Name of the extractor that the thresholds were chosen for; any where empty."""
    candidate: str = "candidate"
    """Alias of the version that wants to serve."""
    champion: str = "champion"
    """Alias that serving follows."""


def ssd1b() -> Promote:
    """Real weights, by the CLIP score of jobs.evaluate's mlperf_sdxl: 97 % of the score, 52 % of the size, 1.5 x."""
    return Promote(name="ssd1b", thresholds=Thresholds(), scorer="clip")


def nano() -> Promote:
    """The nano student, by what two CPU cores can measure in two minutes; looser than real weights, for these reasons.

    prompts: on objects that the nano teacher never saw its own score is near chance, so that a share of it says
    little. score_kept, score_margin: the student trains for four minutes and was measured at 0.94 (95 %: 0.83 to 1.05)
    of the teacher's score over 72 prompts.
    parameters_ratio: at nano width, SSD-1B's blocks are 58 % of the whole; layers that are not carved weigh more.
    step_speedup: 1.5 to 1.7 on a quiet machine, and a busy one can take 0.1 of it.
    """
    return Promote(
        name="ssd1b-nano",
        thresholds=Thresholds(
            prompts="all", score_kept=0.88, score_margin=0.13, parameters_ratio=0.60, step_speedup=1.3
        ),
        scorer="nano",
    )


RECIPES: dict[str, Callable[[], Promote]] = {"nano": nano, "ssd1b": ssd1b}
