"""Who decodes the pictures of jobs.encode: threads of the actor that holds the VAE, or CPUs anywhere in the cluster.

A picture is three megabytes of pixels and a third of one as a JPEG, so it is best decoded where the VAE is: a core or
two keep a GPU busy. Tasks elsewhere are for nodes whose GPUs outnumber what their CPUs can feed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray

from ssd1b.corpus.pixels import read_pixels
from ssd1b.corpus.reasons import Reason, Reject
from ssd1b.recipes.encode import Encode
from ssd1b.sizes import Size

COPIED = ("sample_id", "captions", "split", "style", "concept")
Row = dict[str, Any]
Prepared = list[Row | Reason]


class Decoders(Protocol):
    """Decode batches of manifest rows in the background, in the order in which they are given."""

    ahead: int
    """Batches to hand in before the first is asked for."""

    def start(self, rows: list[Row]) -> Callable[[], Prepared]:
        """Begin with a batch and return what waits for its end."""


class ThreadDecoders:
    """Threads of this process. Pillow and torch let go of the interpreter while they work."""

    ahead = 1

    def __init__(self, config: Encode) -> None:
        self.threads = ThreadPoolExecutor(config.decode_threads)
        self.prepare = partial(prepare, max_pixels=config.max_pixels)

    def start(self, rows: list[Row]) -> Callable[[], Prepared]:
        coming = self.threads.map(self.prepare, rows)
        return lambda: list(coming)


class TaskDecoders:
    """Ray tasks of one CPU each, a batch a task. Ray places them on nodes without GPUs first, and runs again what dies
    with its node."""

    def __init__(self, config: Encode) -> None:
        self.ahead = config.decode_tasks
        self.task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(prepare_batch)
        self.max_pixels = config.max_pixels

    def start(self, rows: list[Row]) -> Callable[[], Prepared]:
        return partial(ray.get, self.task.remote(rows, self.max_pixels))


def decoders(config: Encode) -> Decoders:
    """Return what the recipe decodes with."""
    return TaskDecoders(config) if config.decode_tasks else ThreadDecoders(config)


def prepare_batch(rows: list[Row], max_pixels: int) -> Prepared:
    return [prepare(row, max_pixels=max_pixels) for row in rows]


def prepare(row: Row, *, max_pixels: int) -> Row | Reason:
    """Return a manifest row's latents row, still without mean and std but with its pixels, uint8 [H, W, 3]."""
    try:
        data = row["image"] if row["image"] is not None else Path(row["path"]).read_bytes()
    except OSError:
        return Reason.IMAGE_MISSING
    bucket = Size.parse(row["bucket"])
    found = read_pixels(data, bucket, max_pixels=max_pixels)
    if isinstance(found, Reject):
        return found.reason
    return {
        **{name: row[name] for name in COPIED},
        "original_height": row["height"],
        "original_width": row["width"],
        "crop_top": found.top,
        "crop_left": found.left,
        "target_height": bucket.height,
        "target_width": bucket.width,
        "pixels": found.pixels_HWC,
    }
