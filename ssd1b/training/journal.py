"""What a run leaves to read: events for whoever watches, and which samples each worker took.

Workers die, so they only append lines to files under the run's folder; the job that started them follows the files,
prints and logs to MLflow. So there is one writer to MLflow, and it outlives every worker.

    events.jsonl               rank 0: starts, steps, checkpoints, ends of stages
    consumed/<attempt>-<rank>.jsonl   every rank: the samples of each step
    failure.json               why no restart can help
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import compress, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ssd1b.elastic.feed import attempts
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order

EVENTS = "events.jsonl"
FAILURE = "failure.json"

Pass = tuple[int, int]
"""(epoch, sample_id): what must be met once."""


class Lines:
    """Appends JSON lines to a file; a line torn by a kill stays alone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", buffering=1)
        self.file.write("\n")

    def add(self, **fields: Any) -> None:
        self.file.write(json.dumps(fields) + "\n")


def lines(told: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the whole lines; what a kill has torn is no line."""
    for line in told:
        try:
            if line.strip():
                yield json.loads(line)
        except json.JSONDecodeError:
            continue


def events(root: Path) -> list[dict[str, Any]]:
    """Return the events of a run so far."""
    path = root / EVENTS
    return list(lines(path.read_text().splitlines())) if path.exists() else []


def surviving_steps(events: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the step events that made the student, by step: of a step that was taken again, the last."""
    return {event["step"]: dict(event) for event in events if event["kind"] == "step"}


@dataclass(frozen=True)
class Audit:
    """What became of the samples, in the steps that made the student."""

    steps: int
    samples: int
    repeated: int
    """Passes over a sample that were taken more than once."""
    missed: int
    """Passes that the elastic order holds and nobody took."""
    redone_steps: int
    """Steps that were lost with a worker and taken again."""


def audit(root: Path, order: Order, latents: Latents, steps: int) -> Audit:
    """Compare what the workers say they took with the elastic order, step by step; one step is held at a time."""
    samples = repeated = missed = 0
    lost: list[int] = []
    told = surviving(root, steps, lost)
    step, met = next(told, NOTHING)
    for now in range(steps):
        expected = Counter(held_by(order, latents, now))
        here = Counter[Pass]()
        if step == now:
            here = met
            step, met = next(told, NOTHING)
        samples += here.total()
        repeated += (here - expected).total()
        missed += (expected - here).total()
    assert step == NOTHING[0], "the journal is not in the order of steps"
    return Audit(steps=steps, samples=samples, repeated=repeated, missed=missed, redone_steps=len(lost))


NOTHING: tuple[int, Counter[Pass]] = (-1, Counter())


def held_by(order: Order, latents: Latents, step: int) -> Iterator[Pass]:
    """Yield what the elastic order holds for a step."""
    for k in range(order.slices):
        one = order.slice_at(step, k)
        yield from zip(one.epoch_R.tolist(), latents.buckets[one.bucket].sample_ids[one.row_R].tolist(), strict=True)


def surviving(root: Path, steps: int, lost: list[int]) -> Iterator[tuple[int, Counter[Pass]]]:
    """Yield each step that made the student, in order, with what was met there; note the steps that were lost."""
    starts = attempts(root)
    for attempt in range(len(starts)):
        end = min((later.first_step for later in starts[attempt + 1 :]), default=steps)
        ranks = [steps_of(path) for path in sorted((root / "consumed").glob(f"{attempt}-*.jsonl"))]
        for step, of_step in groupby(merge(*ranks, key=STEP), key=STEP):
            if step < end:
                yield step, Counter(one for _, taken_there in of_step for one in taken_there)
            else:
                lost.append(step)


STEP: Callable[[tuple[int, list[Pass]]], int] = itemgetter(0)


def steps_of(path: Path) -> Iterator[tuple[int, list[Pass]]]:
    """Yield (step, what was taken) of each slice that a worker noted."""
    with path.open() as file:
        for line in lines(file):
            yield line["step"], list(zip(line["epoch"], line["sample_id"], strict=True))


def taken(rows: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the epoch and sample_id of the real rows of a slice."""
    real = rows["real"]  # no NumPy: it would make floats of ids on both sides of 2**63
    return {name: list(compress(rows[name], real)) for name in ("epoch", "sample_id")}


def fail(root: Path, message: str) -> None:
    """Note why no restart can help; workers that start later leave at once."""
    (root / FAILURE).write_text(json.dumps({"error": message}))


def failure(root: Path) -> str | None:
    """Return what `fail` noted, or None."""
    path = root / FAILURE
    return str(json.loads(path.read_text())["error"]) if path.exists() else None
