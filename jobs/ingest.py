"""Turn a corpus into a manifest, with a report in MLflow: python -m jobs.ingest RECIPE."""

from ssd1b.command import main
from ssd1b.corpus.record import recorded
from ssd1b.recipes.ingest import RECIPES

if __name__ == "__main__":
    main(RECIPES, recorded)
