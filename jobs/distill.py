"""Distill a student from its teachers, stage by stage, on elastic workers: python -m jobs.distill ssd1b_nano.

Started again under the same run name it goes on from the newest checkpoint. The student is registered as candidate.
"""

from ssd1b.command import main
from ssd1b.recipes.distill import RECIPES
from ssd1b.training.trainer import distill

if __name__ == "__main__":
    main(RECIPES, distill)
