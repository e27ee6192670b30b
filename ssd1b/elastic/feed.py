"""Delivery: Ray Data reads the slices and hands each worker its own, in the elastic order, at any world size.

`ray.data.range` counts the slots that are still to come; each becomes the R rows of its slice; a strict repartition
makes every block one slot; an order-preserving split deals the blocks round robin. Where the world size does not
divide V, the last slots of a step are null: rows that are real in nothing but shape. Ray Train asks `Delivery` for the
splits each time it starts a worker group, so a restart begins at the newest checkpoint with the workers there are.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.train
from numpy.typing import NDArray

from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order, place_of, slots_per_step

ROWS_AT_ONCE = 2048
"""Rows that a task reads together: it opens each row group that holds some of them once, and holds all of them."""
MAX_TASKS = 20_000
"""Ray Data plans every read task at the start; beyond this many, tasks get longer instead."""
DATASET = "slots"


def slots(order: Order, latents: Latents, ids: NDArray[np.int64], first_step: int, world_size: int) -> pa.Table:
    """Return the rows of slots, counted from the first slot of `first_step`, one after the other.

    Adds to the stored columns: slot (counted over all steps), epoch, real (False in the rows of a null slot).
    """
    slot_S = ids + first_step * slots_per_step(order.slices, world_size)
    places = [place_of(slot, order.slices, world_size) for slot in slot_S.tolist()]
    slices = [order.slice_at(step, k or 0) for step, k in places]
    size = order.rows_per_slice
    table = latents.read(np.repeat([one.bucket for one in slices], size), np.concatenate([one.row_R for one in slices]))
    added = {
        "slot": np.repeat(slot_S, size),
        "epoch": np.concatenate([one.epoch_R for one in slices]),
        "real": np.repeat([k is not None for _, k in places], size),
    }
    for name, values in added.items():
        table = table.append_column(name, pa.array(values))
    return table


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a worker group."""

    first_step: int
    world_size: int
    time_s: float
    """Seconds since 1970."""


def note(root: Path, attempt: Attempt) -> None:
    """Add a start to a run's. It begins on a line of its own, whatever a kill has left of the one before."""
    with (root / "attempts.jsonl").open("a") as file:
        file.write("\n" + json.dumps(asdict(attempt)) + "\n")


def attempts(root: Path) -> list[Attempt]:
    """Return the starts of a run so far. One that was killed while it was noted has never had workers."""
    path = root / "attempts.jsonl"
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return [Attempt(**json.loads(line)) for line in whole]


class Delivery(ray.train.DataConfig):  # type: ignore[misc]
    """What Ray Train asks for the splits at every start of a worker group.

    It alone decides where the group begins, and notes it in `<root>/attempts.jsonl` for the workers to read.
    """

    def __init__(
        self,
        *,
        root: Path,
        steps: int,
        order: Order,
        latents: Latents,
        task_cpus: float,
        resume_step: Callable[[], int],
    ) -> None:
        """resume_step returns the first step that no checkpoint holds; it is asked at every start."""
        super().__init__()
        self.root, self.steps, self.order, self.latents, self.task_cpus = root, steps, order, latents, task_cpus
        self.resume_step = resume_step

    def configure(
        self,
        datasets: Mapping[str, Any],
        world_size: int,
        worker_handles: Any = None,
        worker_node_ids: Any = None,
        **_: Any,
    ) -> list[dict[str, Any]]:
        """Return the split of each worker, from the newest checkpoint's step on."""
        del datasets, worker_handles, worker_node_ids  # the order alone decides who gets what
        first_step = self.resume_step()
        note(self.root, Attempt(first_step=first_step, world_size=world_size, time_s=time.time()))
        splits = self.dataset(first_step, world_size).streaming_split(world_size, equal=True)
        return [{DATASET: split} for split in splits]

    @cached_property
    def shared_latents(self) -> Any:
        """The index where all tasks of all attempts find it; it belongs to the process that configures."""
        return ray.put(self.latents)

    def dataset(self, first_step: int, world_size: int) -> Any:
        """Return the rows of all slots from a step on, one block per slot."""
        order, latents = self.order, self.shared_latents
        count = (self.steps - first_step) * slots_per_step(order.slices, world_size)
        at_once = max(1, ROWS_AT_ONCE // order.rows_per_slice)

        def read(batch: dict[str, NDArray[np.int64]]) -> Iterator[pa.Table]:
            index = ray.get(latents)
            for start in range(0, len(batch["id"]), at_once):
                yield slots(order, index, batch["id"][start : start + at_once], first_step, world_size)

        made = (
            ray.data.range(count, override_num_blocks=min(MAX_TASKS, max(1, -(-count // at_once))))
            .map_batches(read, batch_size=None, num_cpus=self.task_cpus)
            .repartition(target_num_rows_per_block=order.rows_per_slice, strict=True)
        )
        made.context.execution_options = copy.deepcopy(made.context.execution_options)
        made.context.execution_options.preserve_order = True
        made.context.enable_progress_bars = False
        return made
