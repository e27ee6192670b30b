"""Take one idea out of the distillation at a time and measure what it was worth: python -m jobs.ablate nano.

The same seed, data and steps for all; a run that was cut off goes on when the job is started again.
"""

from ssd1b.command import main
from ssd1b.recipes.ablation import RECIPES
from ssd1b.trials.ablation import ablate

if __name__ == "__main__":
    main(RECIPES, ablate)
