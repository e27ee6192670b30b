"""Recipes of jobs.ablate: a distillation, and what is left of it when one idea is taken out at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ssd1b.recipes.distill import Distillation, Stage, Weights, ssd1b_nano
from ssd1b.recipes.evaluate import Evaluate

Variant: TypeAlias = Literal["whole", "one_shot", "blocks", "output_only", "from_scratch"]
VARIANTS: dict[Variant, str] = {
    "whole": "in stages, layer by layer",
    "one_shot": "carved at once",
    "blocks": "features of whole blocks",
    "output_only": "no features",
    "from_scratch": "random weights, no teacher",
}
"""What each is called in tables."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Runs of equal steps, seed and data that differ in one thing each."""

    distillation: Distillation
    """The whole of it; its run is the first part of every variant's name."""
    variants: tuple[Variant, ...] = ("whole", "one_shot", "blocks", "output_only", "from_scratch")
    seeds: tuple[int, ...] = (0,)
    error_pictures: int = 48
    """Held-out pictures that every checkpoint's noise estimates are measured on."""
    evaluation: Evaluate
    """How the last students are compared with the teacher."""


def variant(config: Distillation, name: Variant, seed: int) -> Distillation:
    """Return the distillation without one of its ideas, under a name of its own, with as many steps."""
    changes: dict[Variant, Callable[[], Distillation]] = {
        "whole": lambda: config,
        "one_shot": lambda: replace(config, stages=(at_once(config.stages),)),
        "blocks": lambda: replace(config, features="blocks"),
        "output_only": lambda: replace(
            config, stages=tuple(replace(stage, weights=replace(stage.weights, feature=0.0)) for stage in config.stages)
        ),
        "from_scratch": lambda: replace(
            config,
            from_scratch=True,
            stages=(replace(at_once(config.stages), weights=Weights(output=0.0, feature=0.0)),),
        ),
    }
    run = f"{config.run}-{name.replace('_', '-')}-{seed}"
    return replace(changes[name](), run=run, registered_name=run, seed=seed, prompts=())


def at_once(stages: tuple[Stage, ...]) -> Stage:
    """Return one stage that carves what all of these carve and takes as many steps, under the last one's teacher."""
    return replace(
        stages[-1],
        name="all",
        carve=tuple(part for stage in stages for part in stage.carve),
        steps=sum(stage.steps for stage in stages),
    )


def nano() -> Ablation:
    """SSD-1B's blocks carved from the nano teacher, which teaches all stages: about 25 minutes a seed on two cores."""
    whole = ssd1b_nano()
    stages = tuple(
        replace(stage, teacher="nano", steps=steps) for stage, steps in zip(whole.stages, (30, 40, 110), strict=True)
    )
    return Ablation(
        distillation=replace(
            whole, run="ablation", student="ssd-1b", stages=stages, checkpoint_steps=20, keep_checkpoints=99
        ),
        evaluation=Evaluate(name="", teacher="nano"),
    )


def debug() -> Ablation:
    """Three steps a run: proves the way, shows nothing."""
    whole = nano()
    stages = tuple(replace(stage, steps=1, warmup_steps=1) for stage in whole.distillation.stages)
    return replace(
        whole,
        distillation=replace(whole.distillation, run="ablation-debug", stages=stages, global_batch=4, slices=2),
        error_pictures=2,
        evaluation=Evaluate(name="", teacher="nano", prompts=3, steps=2, batch=6, timing_rounds=1, error_pictures=2),
    )


RECIPES: dict[str, Callable[[], Ablation]] = {"nano": nano, "debug": debug}
