"""Turn a manifest into latents: python -m jobs.encode RECIPE."""

from ssd1b.command import main
from ssd1b.corpus.latents import encode
from ssd1b.recipes.encode import RECIPES

if __name__ == "__main__":
    main(RECIPES, encode)
