"""Timing by turns: what else the machine does meets all contenders alike."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]


def medians_ms(calls: Mapping[str, Call], repeats: int, device: torch.device | None = None) -> dict[str, float]:
    """Return the median wall time of each call, milliseconds; the first turn is not counted.

    A call on a GPU ends when the GPU is done with it.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            settle(device)
            started = time.perf_counter()
            call()
            settle(device)
            if turn:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def settle(device: torch.device | None) -> None:
    """Wait until a GPU has nothing left to do."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
