"""What a worker can tell of its machine without making a step wait: waiting for rows, memory, processor time."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import torch

GIB = 2**30
Item = TypeVar("Item")


class Waited(Generic[Item]):
    """Hands on what an iterator yields, and counts the seconds that asking for it took.

    They are seconds of the host. On a GPU the host runs ahead of the device, which may work on while the host waits:
    there it is the most that the device can have waited.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self.items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        asked_s = time.perf_counter()
        try:
            return next(self.items)
        finally:
            self.seconds += time.perf_counter() - asked_s

    def taken(self) -> float:
        """Return the seconds that were waited since this was asked last."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Machine:
    """This process and its device, as they have been since the last look."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall_s, self.cpu_s = time.monotonic(), time.process_time()

    def look(self) -> dict[str, float]:
        """Return figures by name, as MLflow shows them under "system". Cheap, and no wait for the device."""
        wall_s, cpu_s = time.monotonic(), time.process_time()
        figures = {
            "system/process_memory_gib": process_gib(),
            "system/process_cores": (cpu_s - self.cpu_s) / max(wall_s - self.wall_s, 1e-9),
        }
        self.wall_s, self.cpu_s = wall_s, cpu_s
        if self.device.type == "cuda":
            figures["system/gpu_memory_peak_gib"] = torch.cuda.max_memory_allocated(self.device) / GIB
            figures["system/gpu_memory_reserved_gib"] = torch.cuda.memory_reserved(self.device) / GIB
        return figures


def process_gib() -> float:
    """Return the memory that this process holds now. Linux's /proc tells in pages."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / GIB
