"""How fast latents of 1024 pixels reach a training loop: the feed's ceiling, with Ray and without, and against others.

The corpus is one part under many names, so that it is large enough for the order of a large corpus (elastic/passes.py)
and small enough for a disk: every name is a file of its own to the reader, and all come from memory, as the feed's own
speed is asked and not the storage's. What storage must give is the bytes of a row times the rows.
"""

import os
import tarfile
import threading
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssd1b.command import show
from ssd1b.corpus.contest import Contender, Others, timed
from ssd1b.corpus.encoder import ROW_GROUP_ROWS, SCHEMA
from ssd1b.corpus.manifest import write_table
from ssd1b.elastic.feed import DATASET, Delivery, slots
from ssd1b.elastic.passes import WINDOW_ROWS
from ssd1b.elastic.rows import Latents
from ssd1b.session import connect

LATENT_SHAPE = (4, 128, 128)
NEEDED_ROWS_PER_S = 412.0
"""What 64 A100s use up when SSD-1B is distilled at 1024 pixels: 6.44 rows/s each, from the FLOPs of a step at 40 %."""
OURS = "ssd1b"


def write_part(folder: Path, rows: int, seed: int = 0) -> Path:
    """Write one part of latents of 1024 pixels, of chance, under as many names as the order of a large corpus needs."""
    random = np.random.default_rng(seed)
    table = pa.Table.from_pylist(
        [
            {
                "sample_id": i,
                "mean": random.normal(0, 0.9, LATENT_SHAPE).astype(np.float16).tobytes(),
                "std": np.exp(random.normal(-4, 0.3, LATENT_SHAPE)).astype(np.float16).tobytes(),
                **dict.fromkeys(("original_height", "original_width", "target_height", "target_width"), 1024),
                **dict.fromkeys(("crop_top", "crop_left"), 0),
                "captions": [f"thing {i}"],
                "split": "train",
            }
            for i in range(rows)
        ],
        schema=SCHEMA,
    )
    part = folder / "latents" / "bucket=1024x1024" / "part-00000-0000.parquet"
    write_table(table, part, row_group_rows=ROW_GROUP_ROWS)
    for name in range(1, WINDOW_ROWS // rows + 2):
        os.link(part, part.with_name(f"part-{name:05d}-0000.parquet"))
    return part


def latent_contenders(part: Path, pythons: list[Others]) -> dict[str, Contender]:
    """Return all who read rows of latents in shuffled order, by name; a round is as many rows as the part has."""
    latents = Latents.open(part.parent.parent)
    order = latents.order(global_batch=128, slices=16, seed=0)
    per_round = pq.read_metadata(part).num_rows // order.rows_per_slice

    def read(round_: int) -> tuple[int, int]:
        ids = np.arange(round_ * per_round, (round_ + 1) * per_round)
        return unpack(slots(order, latents, ids, 0, 1))

    contenders: dict[str, Contender] = {OURS: lambda round_: timed(partial(read, round_))}
    tar, mds = part.parents[2] / "latents.tar", part.parents[2] / "latents.mds"
    for python in pythons:
        for module, shard in (("webdataset", tar), ("datasets", part), ("streaming", mds)):
            if module not in python.found or module in contenders:
                continue
            if module != "datasets" and not tar.exists():
                write_tar(part, tar)
            if module == "streaming":
                python.ask({"pass": "write_streaming", "tar": str(tar), "shard": str(mds), "suffixes": ["mean", "std"]})
            contenders[module] = passing(python, f"{module}_latents", shard)
    return contenders


def passing(python: Others, name: str, shard: Path) -> Contender:
    return lambda _round: python.turn({"pass": name, "shard": str(shard), "workers": 0})


def unpack(table: pa.Table) -> tuple[int, int]:
    """Return the rows of a table and the bytes of their latents, which become arrays as in the training loop."""
    size = 0
    for name in ("mean", "std"):
        for value in table[name]:
            size += np.frombuffer(value.as_buffer(), np.float16).reshape(LATENT_SHAPE).nbytes
    return len(table), size


def write_tar(part: Path, tar: Path) -> None:
    """Write latents as WebDataset does: KEY.mean.bin and KEY.std.bin."""
    table = pq.read_table(part, columns=["mean", "std"], partitioning=None)
    with tarfile.open(tar, "w") as out:
        for i, row in enumerate(table.to_pylist()):
            for name, data in row.items():
                entry = tarfile.TarInfo(f"{i:08d}.{name}.bin")
                entry.size = len(data)
                out.addfile(entry, BytesIO(data))


def through_ray(part: Path, *, rows_per_slice: tuple[int, ...], rows: int, workers: int) -> dict[int, dict[str, float]]:
    """Print and return slices/s and rows/s that Ray Data delivers to so many workers, by rows per slice.

    The clock runs from the first slice that arrives to the last, so that starting up does not count. A worker here is
    a thread of the driver that turns rows into arrays and does nothing else.
    """
    if not rows_per_slice:
        return {}
    connect(local_cpus=os.cpu_count() or 1)
    latents = Latents.open(part.parent.parent)
    show(f"{'Ray Data, rows per slice':44s}{'slices/s':>20s}{'rows/s':>14s}{'of need':>8s}")
    table = {}
    for size in rows_per_slice:
        order = latents.order(global_batch=workers * size, slices=workers, seed=0)
        steps = rows // order.global_batch
        delivery = Delivery(
            root=part.parents[2], steps=steps, order=order, latents=latents, task_cpus=1.0, resume_step=lambda: 0
        )
        arrived: list[float] = []
        threads = [
            threading.Thread(target=consume, args=(split[DATASET], size, arrived))
            for split in delivery.configure({}, workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(arrived) == steps * workers, "a slice is missing"
        rate = (len(arrived) - 1) / (max(arrived) - min(arrived))
        table[size] = {"slices_per_s": round(rate, 1), "rows_per_s": round(rate * size, 1)}
        show(f"{size:<44d}{rate:20.1f}{rate * size:14.1f}{rate * size / NEEDED_ROWS_PER_S:8.2f}")
    return table


def consume(split: Any, rows_per_slice: int, arrived: list[float]) -> None:
    """Note when each slice of a worker has arrived."""
    for table in split.iter_batches(batch_size=rows_per_slice, batch_format="pyarrow", prefetch_batches=2):
        unpack(table)
        arrived.append(time.perf_counter())
