"""What Ray Train runs on every worker: find out where and as whom, then the loop."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError, RayTaskError

from ssd1b.elastic.feed import DATASET, Attempt, attempts
from ssd1b.training import journal, notice
from ssd1b.training.laps import Laps, since_process_start
from ssd1b.training.loop import Rows, Worker, distill
from ssd1b.training.newest import ReplacedError
from ssd1b.training.notice import LeftError
from ssd1b.training.task import Task

HOPELESS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, OSError)
"""Errors that would meet a restarted worker again. A lost peer shows as a RuntimeError of the collective instead."""
PASSING = (ConnectionError, TimeoutError, InterruptedError)
"""OSErrors that a restart may mend."""
PATIENCE = 4
"""Starts in a row from the same step that ended by an error of their own before the run is given up."""
FUTILE = 20
"""Starts in a row from the same step before the run is given up, whatever ended them."""
ERRORS = "errors.jsonl"


def work(told: dict[str, Task]) -> None:
    """Do a worker's part. What no restart can mend is noted; the next start then ends at once and the job says it.

    Ray Train itself cannot tell a lost machine from a mistake and is told to restart for ever.
    """
    laps = since_process_start()
    laps.lap("process and imports")
    task = told["task"]
    if journal.failure(task.root):
        return
    known = len(attempts(task.root)) + 1
    try:
        enter(task, laps)
    except (LeftError, ReplacedError):
        raise
    except Exception as error:
        if len(attempts(task.root)) > known:
            raise ReplacedError(
                "the run has been started again elsewhere, its errors are no longer this one's"
            ) from error
        if taken_down():
            raise
        cause = getattr(error, "cause", error)  # Ray wraps what a task of its own raised, with the task's traceback
        message = str(cause) or repr(cause)
        if hopeless(error):
            journal.fail(task.root, message)
        elif not of_a_peer(error):
            journal.Lines(task.root / ERRORS).add(attempt=len(attempts(task.root)) - 1, error=message)
        raise


def taken_down() -> bool:
    """Has Ray Train taken the process group away, as it does once a peer is lost? Later errors are no reason to end."""
    return not torch.distributed.is_initialized()


def hopeless(error: Exception) -> bool:
    """Would a restarted worker meet this error again?"""
    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        return False  # a node, an actor or an object of Ray's is gone, or late
    return isinstance(error, HOPELESS) and not isinstance(error, PASSING)


def of_a_peer(error: Exception) -> bool:
    """Is this only how another worker's end shows here?"""
    if isinstance(error, torch.distributed.DistError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in said for word in ("gloo", "nccl", "connection", "peer"))


def enter(task: Task, laps: Laps) -> None:
    """Start the loop from where Ray Train has started this worker group."""
    config, root = task.config, task.root
    torch.set_num_threads(config.threads_per_worker)
    shard = ray.train.get_dataset_shard(DATASET)  # returns once the delivery has noted where this start begins
    laps.lap("shard")
    tables = shard.iter_batches(batch_size=task.order.rows_per_slice, batch_format="pyarrow", prefetch_batches=2)
    rows = ahead(table.to_pydict() for table in tables)
    starts = attempts(root)
    if why := given_up(root, [start for start in starts if start.time_s >= task.launched_s], len(starts)):
        raise ValueError(why)
    node_id = ray.get_runtime_context().get_node_id()
    notice.watch([notice.source(name, node_id) for name in config.spot_notices], root, node_id)
    worker = Worker(
        rank=ray.train.get_context().get_world_rank(),
        device=ray.train.torch.get_device(),
        starts=starts,
        wrap=ray.train.torch.prepare_model,
        laps=laps,
    )
    distill(task, worker, rows)


def ahead(rows: Iterator[Rows]) -> Iterator[Rows]:
    """Yield the rows; the first are asked for at once, so that they are read while the models are loaded."""
    thread = ThreadPoolExecutor(1)
    first = thread.submit(next, rows, None)
    thread.shutdown(wait=False)

    def each() -> Iterator[Rows]:
        one = first.result()
        if one is not None:
            yield one
        yield from rows

    return each()


def given_up(root: Path, starts: list[Attempt], attempts_so_far: int) -> str | None:
    """Return why a run is not started once more, or None. starts: those of this job, the last of them this one.

    A start whose machine was taken away is no reason, however early; one that fails by itself time and again is.
    """
    first = starts[-1].first_step
    same = 0
    for start in reversed(starts):
        if start.first_step != first:
            break
        same += 1
    path = root / ERRORS
    told = list(journal.lines(path.read_text().splitlines())) if path.exists() else []
    errors = {line["attempt"]: line["error"] for line in told}
    earlier = range(attempts_so_far - 2, attempts_so_far - 1 - same, -1)
    failed = [errors[attempt] for attempt in earlier if attempt in errors]
    if len(failed) >= PATIENCE:
        return f"{len(failed)} starts from step {first} got no further; the last said: {failed[0]}"
    if same > FUTILE:
        return f"{same - 1} starts in a row from step {first} got no further; the workers' logs say why"
    return None
