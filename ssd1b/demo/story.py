"""The demo from first to last: submit the jobs in order, draw the gallery, print the table."""

from typing import Any

from ssd1b.command import show
from ssd1b.demo.gallery import make_gallery, write_results
from ssd1b.demo.steps import run_steps
from ssd1b.demo.table import table
from ssd1b.recipes.demo import Demo


def tell(config: Demo) -> dict[str, Any]:
    """Run every step and return what was made; the jobs' own results lie in <storage root>/demo/results.json.

    Raises:
        ValueError: no cluster is named, or a job failed.
    """
    results = run_steps(config.steps)
    show("\ndrawing the gallery: teacher, stages, endpoint, endpoint with LoRA")
    gallery, served = make_gallery(config)
    results["latency_s"] = {kind: sorted(answer.latency_s for answer in answers) for kind, answers in served.items()}
    show("\n" + table(config, results))
    show(f"\ngallery   {gallery}\nMLflow    make ui\nendpoint  make serve")
    return {"gallery": str(gallery), "results": str(write_results(results))}
