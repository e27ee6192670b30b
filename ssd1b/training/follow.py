"""Follow a run's events: whoever wants them gets each once, in order, whatever jobs come and go.

It runs in the job, beside Ray Train. A follower whose store does not answer waits and tries again; the events stay on
disk, so a store that is down costs nothing but the wait.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ssd1b.command import show
from ssd1b.tracking.store import UnansweredError
from ssd1b.training.journal import EVENTS, lines

POLL_S = 0.5
PAUSES_S = (2.0, 5.0, 15.0, 60.0)
"""Waits after a store has not answered once, twice, and so on."""
PATIENCE_S = 30.0
"""How long the end of a job waits for a store."""

Event = dict[str, Any]


class Follower:
    """Hands every event of a run to a function once, also those of an earlier job of the same run."""

    def __init__(
        self, root: Path, handle: Callable[[Event], None], position: str, *, patience_s: float = PATIENCE_S
    ) -> None:
        """position: the file that holds how far this follower has come."""
        self.root, self.handle, self.patience_s = root, handle, patience_s
        self.position = root / position
        self.done = threading.Event()
        self.error: Exception | None = None
        self.unanswered = 0
        """Tries since the store answered last."""
        self.again_s = 0.0
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self) -> "Follower":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done.set()
        self.thread.join()
        if self.error and not error:
            raise self.error

    @property
    def waiting(self) -> int:
        """Bytes of events that nobody has taken yet."""
        path = self.root / EVENTS
        return path.stat().st_size - self.offset() if path.exists() else 0

    def follow(self) -> None:
        try:
            while not self.done.wait(POLL_S):
                self.drain()
            end_s = time.monotonic() + self.patience_s
            self.again_s = 0.0
            self.drain()
            while self.unanswered and time.monotonic() < end_s:
                time.sleep(POLL_S)
                self.drain()
        except Exception as error:  # raised again in the job's own thread
            self.error = error

    def drain(self) -> None:
        """Hand on what has been appended since the last time; a line without its end waits."""
        path = self.root / EVENTS
        if not path.exists() or time.monotonic() < self.again_s:
            return
        offset = self.offset()
        with path.open("rb") as file:
            file.seek(offset)
            whole, end, _ = file.read().rpartition(b"\n")
        for line in (whole + end).splitlines(keepends=True):
            for event in lines([line.decode()]):
                try:
                    self.handle(event)
                except UnansweredError as error:
                    self.wait(error)
                    return
            offset += len(line)
            aside = self.position.with_suffix(".tmp")
            aside.write_text(json.dumps({"bytes": offset}))
            aside.rename(self.position)
        if self.unanswered:
            show("MLflow answers again: what was kept has been sent")
            self.unanswered = 0

    def wait(self, error: UnansweredError) -> None:
        if not self.unanswered:
            show(f"{error}; the run goes on, its figures are kept in {self.root / EVENTS} and sent later")
        self.again_s = time.monotonic() + PAUSES_S[min(self.unanswered, len(PAUSES_S) - 1)]
        self.unanswered += 1

    def offset(self) -> int:
        return int(json.loads(self.position.read_text())["bytes"]) if self.position.exists() else 0


def teller(total: int) -> Callable[[Event], None]:
    """Return what prints the events of a run of so many steps for a person."""
    before: list[Event] = []

    def tell(event: Event) -> None:
        match event["kind"]:
            case "start":
                show(start_line(event, before[-1] if before else None))
                before.append(event)
            case "step":
                show(step_line(event, total, before[-1]["world_size"] if before else 0))
            case "validation":
                show(f"{event['stage']:>5} {event['step']:>5}/{total}  held-out loss {event['loss']:.4f}")
            case "leave":
                show(f"asked to leave ({event['why']}): checkpoint of step {event['step']} kept, nothing is lost")
            case "stage":
                show(stage_line(event))

    return tell


def start_line(event: Event, before: Event | None) -> str:
    """Say who starts where; after a loss, that nothing but time was lost."""
    who = f"{event['world_size']} worker{'s' * (event['world_size'] != 1)}"
    if before is None:
        return f"{who} from step {event['step']}"
    return f"restart: {who} (were {before['world_size']}), going on from the checkpoint of step {event['step']}"


def step_line(event: Event, total: int, world_size: int) -> str:
    metrics = event["metrics"]
    told = [name for name in ("loss", "task", "output", "feature") if name in metrics]  # no output without a teacher
    parts = "  ".join(f"{name} {metrics[name]:.4f}" for name in told)
    return (
        f"{event['stage']:>5} {event['step']:>5}/{total}  {parts}  lr {metrics['lr']:.1e}  "
        f"{metrics['step_s']:.2f} s/step  {metrics['pictures_per_s']:.1f} pictures/s  {world_size} workers"
    )


def stage_line(event: Event) -> str:
    ratio = event["teacher_forward_s"] / event["student_forward_s"]
    return (
        f"stage {event['stage']} done: teacher {event['teacher_parameters']:,} weights, "
        f"student {event['student_parameters']:,}, {ratio:.2f}x the teacher's speed"
    )
