"""Train a LoRA adapter for a style and register it: python -m jobs.lora nano."""

from ssd1b.command import main
from ssd1b.recipes.lora import RECIPES
from ssd1b.training.lora import train

if __name__ == "__main__":
    main(RECIPES, train)
