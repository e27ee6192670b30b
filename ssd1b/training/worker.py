"""What Ray Train runs on every worker: find out where and as whom, then the loop."""

import ray.train
import ray.train.torch
import torch

from ssd1b.elastic.feed import DATASET, attempts
from ssd1b.training import journal
from ssd1b.training.loop import Task, Worker, distill

HOPELESS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, OSError)
"""Errors that would meet a restarted worker again. A lost peer shows as a RuntimeError of the collective instead."""
PATIENCE = 4
"""Starts in a row from the same step before the run is given up."""


def work(told: dict[str, Task]) -> None:
    """Do a worker's part. What no restart can mend is noted; the next start then ends at once and the job says it.

    Ray Train itself cannot tell a lost machine from a mistake and is told to restart for ever.
    """
    task = told["task"]
    if journal.failure(task.root):
        return
    try:
        enter(task)
    except HOPELESS as error:
        cause = getattr(error, "cause", error)  # Ray wraps what a task of its own raised, with the task's traceback
        journal.fail(task.root, str(cause) or repr(cause))
        raise


def enter(task: Task) -> None:
    """Start the loop from where Ray Train has started this worker group."""
    torch.set_num_threads(task.config.threads_per_worker)
    shard = ray.train.get_dataset_shard(DATASET)  # returns once the delivery has noted where this start begins
    starts = attempts(task.root)
    first = starts[-1].first_step
    if [start.first_step for start in starts if start.time_s >= task.launched_s][-PATIENCE:] == [first] * PATIENCE:
        raise ValueError(f"{PATIENCE} starts in a row from step {first} got no further; the workers' logs say why")
    worker = Worker(
        rank=ray.train.get_context().get_world_rank(),
        device=ray.train.torch.get_device(),
        starts=starts,
        wrap=ray.train.torch.prepare_model,
    )
    tables = shard.iter_batches(batch_size=task.order.rows_per_slice, batch_format="pyarrow", prefetch_batches=2)
    distill(task, worker, (table.to_pydict() for table in tables))
