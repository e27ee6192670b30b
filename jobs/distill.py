"""Distill a student from its teachers, stage by stage, on elastic workers: python -m jobs.distill ssd1b_nano.

Started again under the same run name it goes on from the newest checkpoint, and it starts itself again when its process
or the cluster's head is lost. The student is registered as candidate.
"""

from typing import Any

from ssd1b.home import home
from ssd1b.persist import main
from ssd1b.recipes.distill import RECIPES, Distillation
from ssd1b.training.newest import newest_step


def job(config: Distillation) -> dict[str, Any]:
    from ssd1b.training.trainer import distill  # the process that only watches over this one needs none of it

    return distill(config)


def progress(config: Distillation) -> int:
    return newest_step(home() / "distill" / config.run)


if __name__ == "__main__":
    main(RECIPES, job, progress)
