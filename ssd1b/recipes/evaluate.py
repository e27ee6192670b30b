"""What a student is measured on, and against whom."""

from collections.abc import Callable
from dataclasses import dataclass

from ssd1b.recipes.pretrain import BASE_STYLES, CONCEPTS


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """One run of jobs.evaluate."""

    name: str
    """Registered model."""
    teacher: str
    """Source of the model it is measured against (ssd1b.models.files)."""
    alias: str = "candidate"
    """Alias of the version that is measured."""
    prompts: int = 24
    """Prompts of held-out concepts, and as many again of train concepts."""
    styles: tuple[str, ...] = BASE_STYLES
    subgroups: tuple[str, ...] = CONCEPTS
    """Subgroups of the corpus that prompts are taken from; all where empty."""
    seed: int = 0
    """Prompt i is drawn with seed + i by both models."""
    steps: int = 16
    """Denoising steps."""
    guidance: float = 4.0
    sampler: str = "dpmpp_2m"
    batch: int = 16
    """Pictures made at a time."""
    error_pictures: int = 32
    """Pictures of each split that the two models' noise estimates are compared on."""
    timing_rounds: int = 8
    """How often the two models' steps are timed in turn."""
    sheet_prompts: int = 12
    """Rows of the contact sheet."""


def nano() -> Evaluate:
    """The nano student against the last stage's teacher."""
    return Evaluate(name="ssd1b-nano", teacher="nano+poster")


def debug() -> Evaluate:
    """A few pictures in a few steps: proves the path, measures nothing worth knowing."""
    return Evaluate(
        name="ssd1b-nano",
        teacher="nano",
        prompts=3,
        steps=2,
        guidance=1.0,
        batch=6,
        timing_rounds=2,
        sheet_prompts=4,
        error_pictures=2,
    )


RECIPES: dict[str, Callable[[], Evaluate]] = {"nano": nano, "debug": debug}
