"""Where the time of a start goes: from the process's first moment to its first step, part by part."""

import os
import time
from pathlib import Path


class Laps:
    """Seconds between one call of `lap` and the next; the first counts from when it was made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.since_s = time.time()

    def lap(self, name: str) -> None:
        """End the part of this name."""
        now_s = time.time()
        self.seconds[name] = now_s - self.since_s
        self.since_s = now_s


def since_process_start() -> Laps:
    """Return laps that count from when this process was started."""
    laps = Laps()
    laps.since_s = process_start_s()
    return laps


def process_start_s() -> float:
    """Return when this process was started, seconds since 1970. Linux's /proc tells in ticks since the boot."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up_s = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up_s + ticks / os.sysconf("SC_CLK_TCK")
