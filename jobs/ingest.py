"""Turn a corpus into a manifest, with a report in MLflow: python -m jobs.ingest RECIPE.

A corpus of URLs can go in two steps: --set pictures=later judges its metadata, --set path=candidates:NAME fetches.
"""

from ssd1b.command import main
from ssd1b.corpus.record import recorded
from ssd1b.recipes.ingest import RECIPES

if __name__ == "__main__":
    main(RECIPES, recorded)
