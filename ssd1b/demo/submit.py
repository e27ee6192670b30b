"""Submit a job to a Ray cluster as a person would, show its output as it comes, return its last JSON line."""

import json
import time
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from ssd1b.command import show

POLL_S = 0.5


class JobError(ValueError):
    """A submitted job ended without success; the message says which and where its log is."""


def submit(
    client: JobSubmissionClient, name: str, entrypoint: str, env: dict[str, str], may_refuse: bool = False
) -> dict[str, Any]:
    """Run the entrypoint with the current folder as its working directory and return the JSON it printed last.

    With may_refuse a job that printed its result and then failed, as a refused promotion does, has answered.

    Raises:
        JobError: the job failed or was stopped, or printed no JSON.
    """
    job = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": ".", "env_vars": env})
    shown = 0
    while True:
        status = client.get_job_status(job)
        lines = client.get_job_logs(job).splitlines()
        # The last line may still be growing while the job runs.
        ready = len(lines) if status.is_terminal() else max(shown, len(lines) - 1)
        for line in lines[shown:ready]:
            show(f"  {name:9s}| {line}")
        shown = ready
        if status.is_terminal():
            break
        time.sleep(POLL_S)
    found = last_json(lines)
    if status == JobStatus.FAILED and may_refuse and found is not None:
        return found
    if status != JobStatus.SUCCEEDED:
        raise JobError(
            f"job {name} ({job}) ended as {status}; rerun it with: ray job submit --working-dir . -- {entrypoint}"
        )
    if found is None:
        raise JobError(f"job {name} ({job}) printed no JSON line: {entrypoint}")
    return found


def last_json(lines: list[str]) -> dict[str, Any] | None:
    """Return the last line that is a JSON object, or None."""
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except json.JSONDecodeError:  # a line of prose that starts with a brace
                continue
            if isinstance(found, dict):
                return found
    return None
