"""Delivery: Ray Data reads the slices and hands each worker its own, in the elastic order, at any world size.

`ray.data.range` counts the slots that are still to come; each becomes the R rows of its slice; a strict repartition
makes every block one slot; an order-preserving split deals the blocks round robin. Where the world size does not
divide V, the last slots of a step are null: rows that are real in nothing but shape. Ray Train asks `Delivery` for the
splits each time it starts a worker group, so a restart begins at the newest checkpoint with the workers there are.
"""

import copy
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import ray.train
from numpy.typing import NDArray

from ssd1b.elastic.slices import Order, slots_per_step
from ssd1b.training import checkpoint

COLUMNS = (
    "sample_id", "mean", "std", "original_height", "original_width",
    "crop_top", "crop_left", "target_height", "target_width", "captions",
)  # fmt: skip
SLOTS_PER_TASK = 64
MAX_TASKS = 20_000
"""Ray Data plans every read task at the start; beyond this many, tasks get longer instead."""
DATASET = "slots"


@dataclass(frozen=True)
class Bucket:
    """Where the rows of one bucket lie: row groups in files, and which of all their rows are trained on."""

    name: str
    groups: tuple[tuple[str, int], ...]
    """(file, row group)"""
    starts: NDArray[np.int64]
    """First row of each group in the bucket's own numbering."""
    rows: NDArray[np.int64]
    """The rows that are trained on, in the same numbering."""
    sample_ids: NDArray[np.uint64]
    """Of those rows."""


@dataclass(frozen=True)
class Latents:
    """The rows of a latents folder that are trained on, by bucket."""

    buckets: tuple[Bucket, ...]

    @staticmethod
    def open(folder: Path) -> "Latents":
        """Index the training rows of a latents folder.

        Raises:
            ValueError: nothing to train on; the message names the folder and the job that fills it.
        """
        buckets = [index(part) for part in sorted(folder.glob("bucket=*")) if part.is_dir()]
        kept = tuple(bucket for bucket in buckets if len(bucket.rows))
        if not kept:
            raise ValueError(
                f"no latents to train on under {folder}: run `python -m jobs.encode` first, "
                f"so that it writes {folder}/bucket=<WxH>/*.parquet"
            )
        return Latents(kept)

    def order(self, *, global_batch: int, slices: int, seed: int) -> Order:
        """Return the elastic order of these rows."""
        return Order(
            bucket_rows=tuple(len(bucket.rows) for bucket in self.buckets),
            global_batch=global_batch,
            slices=slices,
            seed=seed,
        )

    def fingerprint(self) -> str:
        """Return a digest of which samples stand where: a run cannot be resumed on others."""
        digest = hashlib.sha256()
        for bucket in self.buckets:
            digest.update(bucket.name.encode() + bucket.sample_ids.tobytes())
        return digest.hexdigest()[:16]

    def read(self, bucket: int, row_R: NDArray[np.int64]) -> pa.Table:
        """Return the rows of a bucket in the order asked for."""
        where = self.buckets[bucket]
        stored_R = where.rows[row_R]
        group_R = np.searchsorted(where.starts, stored_R, side="right") - 1
        picks = []
        for group in np.unique(group_R):
            chosen = np.flatnonzero(group_R == group)
            table = row_group(*where.groups[group])
            picks.append((chosen, table.take(pa.array(stored_R[chosen] - where.starts[group]))))
        back = np.argsort(np.concatenate([chosen for chosen, _ in picks]))
        return pa.concat_tables([table for _, table in picks]).take(pa.array(back))


def index(folder: Path) -> Bucket:
    """Return where the rows of a bucket folder lie."""
    groups: list[tuple[str, int]] = []
    starts, rows, ids, total = [], [], [], 0
    for path in sorted(folder.glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["sample_id", "split"])
            kept = np.array(table["split"].to_pylist()) == "train"
            groups.append((str(path), group))
            starts.append(total)
            rows.append(np.flatnonzero(kept) + total)
            ids.append(table["sample_id"].to_numpy()[kept])
            total += len(table)
    none = np.zeros(0, np.int64)
    return Bucket(
        name=folder.name.removeprefix("bucket="),
        groups=tuple(groups),
        starts=np.array(starts, np.int64),
        rows=np.concatenate(rows) if rows else none,
        sample_ids=np.concatenate(ids).astype(np.uint64) if ids else none.astype(np.uint64),
    )


@lru_cache(maxsize=16)
def row_group(path: str, group: int) -> pa.Table:
    """Return one row group; neighbours in the order are neighbours in storage, so the last few are kept."""
    return pq.ParquetFile(path).read_row_group(group, columns=list(COLUMNS))


def slots(order: Order, latents: Latents, ids: NDArray[np.int64], first_step: int, world_size: int) -> pa.Table:
    """Return the rows of slots, counted from the first slot of `first_step`, one after the other.

    Adds to the stored columns: slot (counted over all steps), epoch, real (False in the rows of a null slot).
    """
    per_step = slots_per_step(order.slices, world_size)
    tables = []
    for slot in ids + first_step * per_step:
        step, k = divmod(int(slot), per_step)
        real = k < order.slices
        one = order.slice_at(step, k if real else 0)
        table = latents.read(one.bucket, one.row_R)
        added = {
            "slot": np.full(len(table), slot, np.int64),
            "epoch": one.epoch_R,
            "real": np.full(len(table), real),
        }
        for name, values in added.items():
            table = table.append_column(name, pa.array(values))
        tables.append(table)
    return pa.concat_tables(tables)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a worker group."""

    first_step: int
    world_size: int
    time_s: float
    """Seconds since 1970."""


def attempts(root: Path) -> list[Attempt]:
    """Return the starts of a run so far."""
    path = root / "attempts.jsonl"
    if not path.exists():
        return []
    return [Attempt(**json.loads(line)) for line in path.read_text().splitlines()]


class Delivery(ray.train.DataConfig):  # type: ignore[misc]
    """What Ray Train asks for the splits at every start of a worker group.

    It alone decides where the group begins, and notes it in `<root>/attempts.jsonl` for the workers to read.
    """

    def __init__(self, *, root: Path, steps: int, order: Order, latents: Latents, task_cpus: float) -> None:
        super().__init__()
        self.root, self.steps, self.order, self.latents, self.task_cpus = root, steps, order, latents, task_cpus

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
        note = Attempt(first_step=first_step, world_size=world_size, time_s=time.time())
        with (self.root / "attempts.jsonl").open("a") as file:
            file.write(json.dumps(asdict(note)) + "\n")
        splits = self.dataset(first_step, world_size).streaming_split(world_size, equal=True)
        return [{DATASET: split} for split in splits]

    def resume_step(self) -> int:
        """Return the step of the newest checkpoint, or 0."""
        newest = checkpoint.latest(self.root)
        return checkpoint.step_of(newest) if newest else 0

    def dataset(self, first_step: int, world_size: int) -> Any:
        """Return the rows of all slots from a step on, one block per slot."""
        order, latents = self.order, ray.put(self.latents)
        count = (self.steps - first_step) * slots_per_step(order.slices, world_size)

        def read(batch: dict[str, NDArray[np.int64]]) -> pa.Table:
            return slots(order, ray.get(latents), batch["id"], first_step, world_size)

        made = (
            ray.data.range(count, override_num_blocks=min(MAX_TASKS, -(-count // SLOTS_PER_TASK)))
            .map_batches(read, batch_size=None, num_cpus=self.task_cpus)
            .repartition(target_num_rows_per_block=order.rows_per_slice, strict=True)
        )
        made.context.execution_options = copy.deepcopy(made.context.execution_options)
        made.context.execution_options.preserve_order = True
        made.context.enable_progress_bars = False
        return made
