"""Follow a run's events: print them for a person, log them to MLflow. It runs in the job, beside Ray Train."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from ssd1b import tracking
from ssd1b.command import show
from ssd1b.training.journal import EVENTS, lines

POLL_S = 0.5
POSITION = "followed.json"

Event = dict[str, Any]


class Follower:
    """Handles every event of a run once, in order, also those of an earlier job of the same run that nobody handled."""

    def __init__(self, root: Path, handle: Callable[[Event], None]) -> None:
        self.root, self.handle = root, handle
        self.done = threading.Event()
        self.error: Exception | None = None
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

    def follow(self) -> None:
        try:
            while not self.done.wait(POLL_S):
                self.drain()
            self.drain()
        except Exception as error:  # raised again in the job's own thread
            self.error = error

    def drain(self) -> None:
        """Handle what has been appended since the last time; a line without its end waits."""
        path, position = self.root / EVENTS, self.root / POSITION
        if not path.exists():
            return
        offset = json.loads(position.read_text())["bytes"] if position.exists() else 0
        with path.open("rb") as file:
            file.seek(offset)
            whole, end, _ = file.read().rpartition(b"\n")
        if not end:
            return
        for event in lines(whole.decode().splitlines()):
            self.handle(event)
        position.write_text(json.dumps({"bytes": offset + len(whole) + 1}))


def handler(run: tracking.Run, total: int) -> Callable[[Event], None]:
    """Return what prints and logs an event of a run of so many steps."""
    before: list[Event] = []

    def handle(event: Event) -> None:
        match event["kind"]:
            case "start":
                show(start_line(event, before[-1] if before else None))
                run.metrics({"world_size": event["world_size"]}, event["step"])
                before.append(event)
            case "step":
                show(step_line(event, total, before[-1]["world_size"] if before else 0))
                run.metrics(event["metrics"], event["step"])
            case "checkpoint":
                run.text(json.dumps(event), f"checkpoints/step-{event['step']:08d}.json")
            case "stage":
                show(stage_line(event))
                sheet = Path(event["folder"]) / "teacher_beside_student.png"
                if sheet.exists():
                    run.picture(Image.open(sheet), f"pictures/{event['stage']}.png")

    return handle


def start_line(event: Event, before: Event | None) -> str:
    """Say who starts where; after a loss, that nothing but time was lost."""
    who = f"{event['world_size']} worker{'s' * (event['world_size'] != 1)}"
    if before is None:
        return f"{who} from step {event['step']}"
    return f"restart: {who} (were {before['world_size']}), going on from the checkpoint of step {event['step']}"


def step_line(event: Event, total: int, world_size: int) -> str:
    metrics = event["metrics"]
    parts = "  ".join(f"{name} {metrics[name]:.4f}" for name in ("loss", "task", "output", "feature"))
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
