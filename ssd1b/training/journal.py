"""What a run leaves to read: events for whoever watches, and which samples each worker took.

Workers die, so they only append lines to files under the run's folder; the job that started them follows the files,
prints and logs to MLflow. So there is one writer to MLflow, and it outlives every worker.

    events.jsonl               rank 0: starts, steps, checkpoints, ends of stages
    consumed/<attempt>-<rank>.jsonl   every rank: the samples of each step
    failure.json               why no restart can help
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
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


def lines(text: str) -> Iterator[dict[str, Any]]:
    """Yield the whole lines; what a kill has torn is no line."""
    for line in text.splitlines():
        try:
            if line:
                yield json.loads(line)
        except json.JSONDecodeError:
            continue


def events(root: Path) -> list[dict[str, Any]]:
    """Return the events of a run so far."""
    path = root / EVENTS
    return list(lines(path.read_text())) if path.exists() else []


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
    """Compare what the workers say they took with the elastic order."""
    starts = attempts(root)
    expected = Counter[Pass]()
    for step in range(steps):
        for k in range(order.slices):
            one = order.slice_at(step, k)
            ids = latents.buckets[one.bucket].sample_ids[one.row_R]
            expected.update(zip(one.epoch_R.tolist(), ids.tolist(), strict=True))
    met = Counter[Pass]()
    redone: set[tuple[int, int]] = set()
    for path in sorted((root / "consumed").glob("*.jsonl")):
        attempt = int(path.stem.partition("-")[0])
        end = min((later.first_step for later in starts[attempt + 1 :]), default=steps)
        for line in lines(path.read_text()):
            if line["step"] < end:
                met.update(zip(line["epoch"], line["sample_id"], strict=True))
            else:
                redone.add((attempt, line["step"]))
    return Audit(
        steps=steps,
        samples=met.total(),
        repeated=(met - expected).total(),
        missed=(expected - met).total(),
        redone_steps=len(redone),
    )


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
