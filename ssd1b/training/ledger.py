"""A distillation in MLflow: one run, a child run for each stage, every stage's student as a logged model.

It is fed the run's events by a follower, in the job. Whatever it needs of MLflow it asks for when an event comes, so a
store that is down stops nothing: the follower keeps the event and brings it again. An event may come twice after a
kill; then a metric has two equal points.
"""

import json
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from ssd1b import tracking
from ssd1b.recipes.distill import Distillation
from ssd1b.tracking.store import answering
from ssd1b.training.checkpoint import MANIFEST
from ssd1b.training.notes import Notes

EXPERIMENT = "distill"


class Ledger:
    """What MLflow is told of one run, by this job and those before it."""

    def __init__(self, config: Distillation, notes: Notes) -> None:
        self.config, self.notes = config, notes
        self.stages = {stage.name: stage for stage in config.stages}
        ends = list(accumulate(stage.steps for stage in config.stages))
        self.before = {stage.name: end - stage.steps for stage, end in zip(config.stages, ends, strict=True)}
        self.opened: dict[str, tracking.Run] = {}

    def begin(self, slices: int) -> str:
        """Start the run in MLflow, or remember that an earlier job did, and return its id.

        Raises:
            UnansweredError: MLflow does not answer, and nothing has begun yet.
        """
        if known := self.notes.get("run_id"):
            return known
        with answering():
            run = tracking.begin(EXPERIMENT, self.config.run, tags={"kind": "distill"})
            run.params(replace(self.config, slices=slices))
            run.text(json.dumps(asdict(self.config), indent=1), "recipe.json")
        self.notes.set("run_id", run.run_id)
        return run.run_id

    def handle(self, event: dict[str, Any]) -> None:
        """Tell MLflow of an event.

        Raises:
            UnansweredError: it does not answer.
        """
        with answering():
            match event["kind"]:
                case "start":
                    self.whole().metrics({"world_size": event["world_size"]}, event["step"])
                case "ready":
                    seconds = {f"start/{phase}": taken for phase, taken in event["phases"].items()}
                    self.whole().metrics(seconds, event["step"])
                case "step":
                    self.whole().metrics(event["metrics"], event["step"])
                    child = self.child(event["stage"])
                    child.metrics(event["metrics"], event["step"] - self.before[event["stage"]])
                case "validation":
                    self.whole().metrics({"validation_loss": event["loss"]}, event["step"])
                    child = self.child(event["stage"])
                    child.metrics({"validation_loss": event["loss"]}, event["step"] - self.before[event["stage"]])
                case "checkpoint":
                    self.checkpoint(event)
                case "stage":
                    self.stage(event)

    def checkpoint(self, event: dict[str, Any]) -> None:
        """Keep a checkpoint's manifest, hashes and all; its tensors stay in the run's folder."""
        manifest = Path(event["folder"]) / MANIFEST
        told = json.loads(manifest.read_text()) if manifest.exists() else {}  # older ones are not kept for ever
        self.whole().text(json.dumps({**event, **told}, indent=1), f"checkpoints/step-{event['step']:08d}.json")

    def stage(self, event: dict[str, Any]) -> None:
        """Keep the student of a stage as a logged model with its pictures, and end the stage's run."""
        name, folder = event["stage"], Path(event["folder"])
        child = self.child(name)
        seconds = ("teacher_forward_s", "student_forward_s")
        child.metrics({key: event[key] for key in (*seconds, "teacher_parameters", "student_parameters")})
        sheet = folder / "teacher_beside_student.png"
        if sheet.exists():
            for run in (child, self.whole()):
                run.picture(Image.open(sheet), f"pictures/{name}.png")
        tags = {"run": self.config.run, "stage": name, "teacher": event["teacher"]}
        model = child.model(f"{self.config.registered_name}-{name}", folder, kind="student", tags=tags)
        self.notes.set(f"model {name}", model)  # of a stage whose end was taken again, the last
        child.end("FINISHED")
        del self.opened[name]

    def figures(self, figures: dict[str, Any], step: int) -> None:
        """Keep the figures of a run that has ended."""
        with answering():
            numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
            self.whole().metrics(numbers, step)

    def register(self, folder: Path, tags: dict[str, str]) -> str:
        """Register the last stage's student as candidate, once, and return its version."""
        if known := self.notes.get("version"):
            return known
        with answering():
            version = tracking.register(
                self.config.registered_name,
                folder,
                run_id=self.whole().run_id,
                alias="candidate",
                tags=tags,
                model_id=self.notes.get(f"model {self.config.stages[-1].name}"),
            )
        self.notes.set("version", version)
        return version

    def end(self, status: str) -> None:
        """End the runs that are open, as FINISHED, FAILED or KILLED."""
        with answering():
            self.whole()
            for run in self.opened.values():
                run.end(status)

    def whole(self) -> tracking.Run:
        """Return the run of the whole distillation."""
        if "" not in self.opened:
            run_id = self.notes.get("run_id")
            assert run_id, "begin() comes first"
            self.opened[""] = tracking.again(run_id)
        return self.opened[""]

    def child(self, stage: str) -> tracking.Run:
        """Return the run of a stage; the first event of a stage begins it."""
        if stage not in self.opened:
            known = self.notes.get(f"run {stage}")
            if known:
                self.opened[stage] = tracking.again(known)
            else:
                name = f"{self.config.run} / {stage}"
                tags = {"kind": "stage", "stage": stage}
                run = tracking.begin(EXPERIMENT, name, parent=self.notes.get("run_id"), tags=tags)
                self.notes.set(f"run {stage}", run.run_id)
                run.params(self.stages[stage])
                self.opened[stage] = run
        return self.opened[stage]
