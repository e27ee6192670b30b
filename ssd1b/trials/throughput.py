"""Rows per second of a real run through Ray, at several numbers of workers, and how long its steps wait for their rows.

Ray Train starts the workers, Ray Data reads and deals the slices, the workers train the nano family; what is read here
is what they noted of their steps.
"""

import os
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from ssd1b.command import show
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.distill import Distillation
from ssd1b.session import connect
from ssd1b.training import journal
from ssd1b.training.loop import Task
from ssd1b.training.trainer import train

WARM_SHARE = 4
"""One in so many steps of a run is not counted: the first."""


def throughput(config: Distillation, latents: Latents, scratch: Path, workers: Iterable[int]) -> dict[int, Any]:
    """Train the recipe from the start with each number of workers; print the table and return it.

    Where no cluster is named, one is started, and ended.

    Raises:
        RuntimeError: the workers could not train; the message says why.
    """
    counts = tuple(workers)
    if not counts:
        return {}
    own = not ray.is_initialized()
    connect(local_cpus=int(max(counts) * config.cpus_per_worker) + (os.cpu_count() or 1))
    show(f"{'workers':>8s}{'rows/s':>10s}{'ms/step':>10s}{'waiting':>10s}{'GiB each':>10s}")
    table = {}
    for count in counts:
        root = scratch / f"workers-{count}"
        root.mkdir(parents=True)
        recipe = replace(config, run=f"throughput-{count}", num_workers=(count, count))
        order = latents.order(global_batch=recipe.global_batch, slices=recipe.slices or count, seed=recipe.seed)
        train(Task(config=recipe, root=root, order=order, launched_s=time.time()), latents)
        if why := journal.failure(root):
            raise RuntimeError(f"{count} workers could not train: {why}")
        table[count] = row = summary(journal.events(root), recipe.global_batch)
        show(f"{count:8d}{row['rows_per_s']:10.2f}{row['step_ms']:10.1f}{row['wait_share']:10.2%}"
             f"{row['memory_gib']:10.2f}")  # fmt: skip
    if own:
        ray.shutdown()
    return table


def summary(events: Iterable[Mapping[str, Any]], global_batch: int) -> dict[str, float]:
    """Return what rank 0 noted of the steps of a run; medians, but for the wait, which is the share of all time."""
    told = [event for event in events if event["kind"] == "step"]
    counted = [event["metrics"] for event in told[len(told) // WARM_SHARE :]]
    step_s = statistics.median(metrics["step_s"] for metrics in counted)
    return {
        "rows_per_s": round(global_batch / step_s, 2),
        "step_ms": round(1000 * step_s, 1),
        "wait_share": round(
            sum(metrics["wait_s"] for metrics in counted) / sum(metrics["step_s"] for metrics in counted), 4
        ),
        "memory_gib": round(max(metrics["system/process_memory_gib"] for metrics in counted), 2),
    }
