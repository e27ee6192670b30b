"""Ray Data as this room uses it: many small descriptions of work in, one small report of each back, as they finish.

Pictures are read and written inside the tasks. A task that dies with its node is run again by Ray; it writes the same
files under the same names, each whole or not at all, so that a second run does no harm.
"""

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

from ssd1b.session import connect

Report = dict[str, Any]
MOST_BLOCKS = 4096


class Each:
    """A worker: makes the function once, then calls it on each row. What ails the disk goes back as a value.

    An exception would arrive wrapped in Ray's traceback, where nobody finds "No space left on device".
    """

    def __init__(self, make: Callable[[], Callable[[dict[str, Any]], Report]]) -> None:
        self.function = make()

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        try:
            report = self.function(json.loads(row["work"]))
        except OSError as error:
            file = None if error.filename is None else str(error.filename)
            report = {"errno": error.errno or errno.EIO, "error": error.strerror or str(error), "file": file}
        return {"report": json.dumps(report)}


def each(
    work: Sequence[dict[str, Any]],
    make: Callable[[], Callable[[dict[str, Any]], Report]],
    *,
    actors: int | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> Iterator[Report]:
    """Yield the report of each item of work as it finishes, in any order.

    Without `actors` the items run as tasks on whatever CPUs are free; with them, on so many actors (fewer where there
    is less work), each of which calls `make` once.

    Raises:
        OSError: a task could not read or write; the message is the task's.
    """
    if not work:
        return
    connect(local_cpus=4)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the job prints lines of its own
    items = [{"work": json.dumps(item)} for item in work]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS))
    if actors is None:
        done = dataset.map(lambda row: Each(make)(row), num_cpus=cpus)
    else:
        pool = ray.data.ActorPoolStrategy(size=min(actors, len(items)))
        done = dataset.map(Each, fn_constructor_args=(make,), compute=pool, num_cpus=cpus, num_gpus=gpus)
    for row in done.iter_rows():
        report = json.loads(row["report"])
        if "error" in report:
            raise OSError(report["errno"], report["error"], report["file"])
        yield report
