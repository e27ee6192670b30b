"""The demo from first to last: submit the jobs in order, draw the gallery, print the table."""

import os
import time
from typing import Any

from ray.job_submission import JobSubmissionClient

from ssd1b.command import show
from ssd1b.demo.gallery import make_gallery, write_results
from ssd1b.demo.submit import submit
from ssd1b.demo.table import table
from ssd1b.home import home, tracking_uri
from ssd1b.recipes.demo import Demo
from ssd1b.session import quiet


def tell(config: Demo) -> dict[str, Any]:
    """Run every step and return what was made; the jobs' own results lie in <storage root>/demo/results.json.

    Raises:
        ValueError: no cluster is named, or a job failed.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise ValueError(
            "no cluster: run `make demo`, which starts one on this machine, "
            "or export RAY_API_SERVER_ADDRESS=http://HEAD:8265 of yours"
        )
    quiet()
    home().mkdir(parents=True, exist_ok=True)
    token = os.environ.get("RAY_AUTH_TOKEN")
    client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)
    env = {
        "SSD1B_HOME": str(home()),
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "SSD1B_COMMIT": os.environ.get("SSD1B_COMMIT", ""),
        "OMP_NUM_THREADS": str(os.cpu_count()),  # Ray gives a job's driver one thread
    }
    results: dict[str, Any] = {}
    for i, step in enumerate(config.steps, 1):
        show(f"\n[{i}/{len(config.steps)}] {step.name}: {step.says}")
        show(f"  $ ray job submit --working-dir . -- {step.entrypoint}")
        started = time.monotonic()
        results[step.name] = submit(client, step.name, step.entrypoint, env)
        results[step.name]["wall_s"] = round(time.monotonic() - started, 1)
        show(f"  {step.name} done in {results[step.name]['wall_s']} s")
    show("\ndrawing the gallery: teacher, stages, endpoint, endpoint with LoRA")
    gallery, served = make_gallery(config)
    results["latency_s"] = {kind: sorted(answer.latency_s for answer in answers) for kind, answers in served.items()}
    show("\n" + table(config, results))
    show(f"\ngallery   {gallery}\nMLflow    make ui\nendpoint  make serve")
    return {"gallery": str(gallery), "results": str(write_results(results))}
