"""Turn a corpus into a manifest: python -m jobs.ingest RECIPE."""

from ssd1b.command import main
from ssd1b.corpus.ingest import ingest
from ssd1b.recipes.ingest import RECIPES

if __name__ == "__main__":
    main(RECIPES, ingest)
