"""The engine alone, with nothing around it: how many row-steps a second it makes, and what a swap does to its steps.

python -m ssd1b.trials.load.bare_engine --port 0 --model BUNDLE --adapters FOLDER --rows 8
"""

import json
import statistics
import threading
import time

import torch

from ssd1b.command import show
from ssd1b.engines.graph import example_rows
from ssd1b.models.files import load_unet
from ssd1b.trials.contenders import engine_call
from ssd1b.trials.load.our_engine import OurEngine
from ssd1b.trials.load.wire import options
from ssd1b.trials.turns import Call

TOKENS = 77
REPEATS = 9
SWAPS = 24


def row_steps(engine: OurEngine, rows: int) -> dict[str, float]:
    """Return by pictures in a batch the denoising steps of pictures that the UNet makes a second.

    A picture with guidance is two rows of a call; every picture has an adapter, up to as many as there are slots.
    """
    names = sorted(path.name for path in engine.adapters.iterdir())[: engine.engine.slots - 1]
    slots = [engine.slot_of(name) for name in names]
    # not by turns, as elsewhere: a graph that gets another shape at every call loses time over that
    calls = {pictures: call_of(engine, pictures, slots) for pictures in range(1, rows + 1)}
    return {str(pictures): round(pictures / statistics.median(times(call, REPEATS)), 2)
            for pictures, call in calls.items()}  # fmt: skip


def call_of(engine: OurEngine, pictures: int, slots: list[int]) -> Call:
    rows = example_rows(load_unet(str(engine.bundle.folder)), TOKENS, 2 * pictures)
    worn_B = torch.tensor([slots[i % len(slots)] if slots else 0 for i in range(pictures)] * 2)
    return engine_call(engine.engine, (*rows[:5], worn_B, rows[6]))


def swap_gaps(engine: OurEngine, pictures: int) -> dict[str, float]:
    """Return how long steps take while a thread beside them swaps adapters without pause, over what they take alone.

    The steps are of others: they draw with slot 1, which is not touched. `worst` is the longest step with a swap in it
    over the median one without, less the longest step without: what a swap adds at most, in steps.
    """
    names = sorted(path.name for path in engine.adapters.iterdir())
    step = call_of(engine, pictures, [engine.slot_of(names[0])])
    for name in names:
        engine.adapter(name)
    alone = times(step, SWAPS * 2)
    over, swaps = threading.Event(), list[float]()

    def swap() -> None:
        number = 0
        while not over.is_set():
            began = time.perf_counter()
            engine.load(2 + number % (engine.engine.slots - 2), names[number % len(names)])
            swaps.append(time.perf_counter() - began)
            number += 1
            over.wait(statistics.median(alone))

    thread = threading.Thread(target=swap)
    thread.start()
    beside = times(step, SWAPS * 2)
    over.set()
    thread.join()
    usual = statistics.median(alone)
    return {
        "step_ms": round(1000 * usual, 2),
        "step_ms_beside_swaps": round(1000 * statistics.median(beside), 2),
        "swap_ms": round(1000 * statistics.median(swaps), 2),
        "swaps": len(swaps),
        "median_stall_steps": round(statistics.median(beside) / usual - 1, 3),
        "worst_stall_steps": round((max(beside) - max(alone)) / usual, 3),
    }


def times(step: Call, count: int) -> list[float]:
    """Return the seconds of so many calls in a row, after two that are not counted."""
    step()
    step()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        step()
        found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    given = options(__doc__)
    opened = OurEngine(given.model, given.adapters)
    by_pictures = row_steps(opened, given.rows)
    show(json.dumps({"row_steps_per_s": by_pictures, "swap": swap_gaps(opened, given.rows)}))
