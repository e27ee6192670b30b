"""jobs.benchmark faults: all that can be taken from an elastic run is taken, one after the other, on a real cluster.

Several nodes on this machine, the nano family. After each event the run must go on by itself (only where the whole job
is killed it is started again); what that cost is read from what its workers noted (recovery.py).
"""

import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssd1b.command import show
from ssd1b.corpus.encoder import SCHEMA
from ssd1b.corpus.manifest import write_table
from ssd1b.elastic.feed import attempts
from ssd1b.elastic.rows import Latents
from ssd1b.recipes.benchmark import Faults
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.training import journal
from ssd1b.trials.bed import EVENTS, RESULT, TOLD, Bed, apart
from ssd1b.trials.local_nodes import NODE_CPUS
from ssd1b.trials.recovery import Recovery, steps_lost, table, twice_and_never


def faults(config: Faults) -> dict[str, Any]:
    """Run the events of a recipe in order, print what they cost as a table, and return it.

    Raises:
        ValueError: no such event.
        RuntimeError: the run did not go on.
    """
    if unknown := [name for name in config.events if name not in EVENTS]:
        raise ValueError(f"no event {unknown[0]!r}: choose from {', '.join(EVENTS)}")
    rows = apart(__name__, config, config.scratch)
    for line in table([{name: str(value) for name, value in row.items() if name != "phases"} for row in rows]):
        show(line)
    return {
        "checkpoint_steps": config.checkpoint_steps,
        "events": rows,
        "repeated": sum(row["repeated"] for row in rows),
        "missed": sum(row["missed"] for row in rows),
        "most_seconds": max(row["seconds"] for row in rows),
    }


def main(scratch: Path) -> None:
    """Run the events of a config that lies in a folder, and leave their rows there."""
    config: Faults = pickle.loads((scratch / TOLD).read_bytes())
    home = scratch / "home"
    write_latents(home / "latents" / "made-up", config.rows, config.seed)
    bed = Bed(recipe(config, spot=f"file:{scratch}/spot-{{node}}"), home, scratch, config.nodes)
    with bed.running() as started:
        show(f"started: {went_on(bed, 'start', bed.submitted_s, started, (0, 0), 0)}")
        recoveries = [suffer(bed, name) for name in config.events]
        rows = counted(bed, recoveries)
    (scratch / RESULT).write_text(json.dumps(rows))


def suffer(bed: Bed, name: str) -> Recovery:
    """Wait until the run is in the middle of something, let the event happen, and return how the run went on."""
    bed.wait_until_busy()
    known, workers = len(attempts(bed.root)), attempts(bed.root)[-1].world_size
    happened_s = EVENTS[name](bed)
    ready = bed.wait_for_step(happened_s, known)
    recovery = went_on(bed, name, happened_s, ready, (workers, attempts(bed.root)[-1].world_size), known)
    show(f"{name}: {recovery}")
    return recovery


def went_on(
    bed: Bed, name: str, happened_s: float, ready: dict[str, Any], workers: tuple[int, int], known: int
) -> Recovery:
    """Return what an event cost; known is how many starts there had been."""
    starts = attempts(bed.root)
    seconds = ready["time_s"] - happened_s
    return Recovery(
        event=name,
        workers=workers,
        steps_lost=steps_lost(bed.root, len(starts) - 1),
        seconds=round(seconds, 1),
        noticed_s=round(seconds - sum(ready["phases"].values()), 1),
        phases=ready["phases"],
        starts=len(starts) - known,
        first_step=starts[-1].first_step,
    )


def counted(bed: Bed, recoveries: list[Recovery]) -> list[dict[str, Any]]:
    """Return a row for each event: the samples of the steps from where the run went on until the next event."""
    latents = Latents.open(bed.home / "latents" / bed.recipe.latents)
    order = latents.order(global_batch=bed.recipe.global_batch, slices=bed.recipe.slices or 1, seed=bed.recipe.seed)
    last = next(one["step"] for one in reversed(journal.events(bed.root)) if one["kind"] in ("step", "ready"))
    begins = [0, *(each.first_step for each in recoveries[1:])]
    rows = []
    for each, begin, end in zip(recoveries, begins, [*begins[1:], last], strict=True):
        repeated, missed = twice_and_never(bed.root, order, latents, range(begin, end))
        rows.append(
            {
                "event": each.event,
                "workers": f"{each.workers[0]} -> {each.workers[1]}",
                "steps lost": each.steps_lost,
                "repeated": repeated,
                "missed": missed,
                "seconds": each.seconds,
                "until its processes": each.noticed_s,
                "starts": each.starts,
                "phases": asdict(each)["phases"],
            }
        )
    return rows


def recipe(config: Faults, spot: str) -> Distillation:
    """Return a distillation of the nano family that outlasts the events."""
    stage = Stage(name="all", teacher="nano", carve=("mid", "down", "up"), steps=config.steps, lr=1e-5)
    return Distillation(
        run="faults", base="nano", latents="made-up", stages=(stage,), registered_name="faults", global_batch=8,
        slices=4, num_workers=(1, config.most_workers), cpus_per_worker=NODE_CPUS, resize_interval_s=5.0,
        checkpoint_steps=config.checkpoint_steps, log_steps=1, seed=config.seed, spot_notices=(spot,),
    )  # fmt: skip


def write_latents(folder: Path, rows: int, seed: int) -> None:
    """Write rows of latents of 128 pixels, of chance."""
    random = np.random.default_rng(seed)
    shape = (4, 16, 16)
    table_ = pa.Table.from_pylist(
        [
            {
                "sample_id": i,
                "mean": random.normal(0, 0.9, shape).astype(np.float16).tobytes(),
                "std": np.full(shape, 0.02, np.float16).tobytes(),
                **dict.fromkeys(("original_height", "original_width", "target_height", "target_width"), 128),
                **dict.fromkeys(("crop_top", "crop_left"), 0),
                "captions": [f"thing {i}"],
                "split": "train",
            }
            for i in range(rows)
        ],
        schema=SCHEMA,
    )
    write_table(table_, folder / "bucket=128x128" / "part-00000-0000.parquet", row_group_rows=64)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
