"""Time and memory of drawing pictures one at a time, in a process of its own: python -m ssd1b.demo.one_picture SOURCE.

Prints one JSON line: "seconds" of each picture after a first one that warms up, and "peak_mib", how far the process
grew beyond what it held before the model was loaded.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median

from ssd1b.evaluation.drawing import Model
from ssd1b.sampling.denoise import Request, generate

PROMPT = "a red apple, 3d render style"
STEPS = 20
PICTURES = 4
ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What one process measured."""

    seconds: list[float]
    """Of each picture."""
    peak_mib: float


def peak_mib() -> float:
    """Return the most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(source: str) -> Drawn:
    """Draw, in a process that has drawn nothing before."""
    before = peak_mib()
    model = Model.load(source)
    seconds = []
    for seed in range(PICTURES + 1):
        started = time.perf_counter()
        generate(model.engine, model.prompts, model.decode, [Request(prompt=PROMPT, seed=seed, steps=STEPS)])
        seconds.append(time.perf_counter() - started)
    return Drawn(seconds=seconds[1:], peak_mib=peak_mib() - before)


def in_turns(sources: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Measure every source in fresh processes, in turns, and return medians: {name: {"seconds": s, "peak_mib": m}}."""
    found: dict[str, list[Drawn]] = {name: [] for name in sources}
    for _ in range(ROUNDS):
        for name, source in sources.items():
            ran = subprocess.run(
                [sys.executable, "-m", "ssd1b.demo.one_picture", source], check=True, capture_output=True, text=True
            )
            found[name].append(Drawn(**json.loads(ran.stdout.splitlines()[-1])))
    return {
        name: {
            "seconds": median(second for run in runs for second in run.seconds),
            "peak_mib": median(run.peak_mib for run in runs),
        }
        for name, runs in found.items()
    }


if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1]))))
