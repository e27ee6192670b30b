"""The whole way once, on the cluster that RAY_API_SERVER_ADDRESS names: corpus to pictures from an HTTP endpoint.

`make demo` starts a local cluster around it. Every job is submitted through the job submission API, as a person would.
"""

from ssd1b.command import main
from ssd1b.demo.story import tell
from ssd1b.recipes.demo import RECIPES

if __name__ == "__main__":
    main(RECIPES, tell)
