"""Print the family: parameters, transformer blocks and resnets of each UNet. python -m jobs.describe all"""

from ssd1b.command import main
from ssd1b.family.measure import describe
from ssd1b.recipes.describe import RECIPES

if __name__ == "__main__":
    main(RECIPES, describe)
