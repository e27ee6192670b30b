"""Submit jobs one after the other to the cluster that RAY_API_SERVER_ADDRESS names, as a person would."""

import os
import time
from collections.abc import Sequence
from typing import Any

from ray.job_submission import JobSubmissionClient

from ssd1b.command import show
from ssd1b.demo.submit import submit
from ssd1b.home import home, tracking_uri
from ssd1b.recipes.demo import Step
from ssd1b.session import quiet


def run_steps(steps: Sequence[Step]) -> dict[str, Any]:
    """Run every step and return what each job printed last, by the step's name, with its "wall_s".

    Raises:
        ValueError: no cluster is named, or a job failed.
    """
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise ValueError(
            "no cluster: run `make demo` or `make reproduce-nano`, which start one on this machine, "
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
    for i, step in enumerate(steps, 1):
        show(f"\n[{i}/{len(steps)}] {step.name}: {step.says}")
        show(f"  $ ray job submit --working-dir . -- {step.entrypoint}")
        started = time.monotonic()
        results[step.name] = submit(client, step.name, step.entrypoint, env, step.may_refuse)
        results[step.name]["wall_s"] = round(time.monotonic() - started, 1)
        show(f"  {step.name} done in {results[step.name]['wall_s']} s")
    return results
