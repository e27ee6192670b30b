"""What rank 0 tells of a run while it trains: events, and the student of each stage with its pictures."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssd1b.elastic.feed import Attempt
from ssd1b.models import lineage
from ssd1b.models.files import load_pipeline, save_folder
from ssd1b.recipes.distill import Distillation
from ssd1b.sampling.decode import Decoder
from ssd1b.sampling.prompts import Prompts
from ssd1b.sizes import Size
from ssd1b.training.checkpoint import step_of
from ssd1b.training.conditioning import Batch
from ssd1b.training.journal import EVENTS, Lines
from ssd1b.training.notice import Kind
from ssd1b.training.pictures import side_by_side
from ssd1b.training.pupil import Pupil
from ssd1b.training.stages import Place
from ssd1b.training.story import story


def stage_folder(root: Path, stage: str) -> Path:
    """Return where a stage's result lies, a whole pipeline in diffusers layout."""
    return root / f"stage-{stage}"


class Report:
    """Appends events on rank 0; on other ranks it does nothing."""

    def __init__(self, config: Distillation, root: Path, rank: int, starts: list[Attempt]) -> None:
        self.config, self.root = config, root
        self.lines = Lines(root / EVENTS) if rank == 0 else None
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.since_s = time.monotonic()
        now = starts[-1]
        self.add(kind="start", step=now.first_step, world_size=now.world_size, pid=os.getpid())

    def add(self, **fields: object) -> None:
        """Append an event with its time, seconds since 1970."""
        if self.lines:
            self.lines.add(time_s=round(time.time(), 3), **fields)

    def ready(self, step: int, phases: Mapping[str, float]) -> None:
        """Tell that the first step of this start is taken, and how many seconds each part of getting there took."""
        self.add(kind="ready", step=step, phases={name: round(seconds, 2) for name, seconds in phases.items()})

    def leave(self, step: int, why: Kind) -> None:
        """Tell that the workers leave with a checkpoint of this step, and why."""
        self.add(kind="leave", step=step, why=why)

    def due(self, step: int, place: Place) -> bool:
        """Is a line told after this step? True on all ranks alike."""
        return place.last or (step + 1) % self.config.log_steps == 0

    def step(
        self, step: int, place: Place, metrics: Mapping[str, Tensor | float], seen: Mapping[str, float] | None = None
    ) -> None:
        """Count a step in; every `log_steps` steps and at the end of a stage, tell the means since the last time, and
        beside them what was seen of the machine.

        Tensors are 0-dimensional and stay on their device until then, so that a step waits for none.
        """
        if not self.lines:
            return
        for name, value in metrics.items():
            counted = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
            self.sums[name] = self.sums[name] + counted if name in self.sums else counted
        self.steps += 1
        if not self.due(step, place):
            return
        sums = torch.stack([value.double().cpu() for value in self.sums.values()]).tolist()
        step_s = (time.monotonic() - self.since_s) / self.steps
        means = {name: value / self.steps for name, value in zip(self.sums, sums, strict=True)}
        means["feature"] = sum(value for name, value in means.items() if name.startswith("feature/"))
        means |= {"step_s": step_s, "pictures_per_s": self.config.global_batch / step_s, **(seen or {})}
        self.add(kind="step", step=step + 1, stage=place.stage.name, steps=self.steps, metrics=means)
        self.restart_clock()

    def checkpoint(self, folder: Path) -> None:
        """Tell of a checkpoint that is whole."""
        self.add(kind="checkpoint", step=step_of(folder), folder=str(folder))

    def stage_end(self, pupil: Pupil, batch: Batch, prompts: Prompts) -> None:
        """Keep the stage's student as a pipeline with its model card, draw it beside its teacher, and time the two."""
        folder = stage_folder(self.root, pupil.stage.name)
        aside = folder.with_name(f".{folder.name}.tmp")
        for left in (aside, folder):  # of an attempt that was killed
            shutil.rmtree(left, ignore_errors=True)
        teacher_s, student_s = pupil.forward_seconds(batch)
        pipeline = load_pipeline(self.config.base, unet=pupil.student)
        save_folder(pipeline, aside)
        lineage.write(story(self.config, pupil), aside)
        if self.config.prompts:
            size = Size(*(8 * side for side in batch.noisy_BCHW.shape[2:]))
            sheet = side_by_side(
                (pupil.teacher, pupil.student), prompts, Decoder(pipeline.vae.to(pupil.device)), self.config.prompts,
                size=size, steps=self.config.picture_steps, guidance=self.config.picture_guidance,
            )  # fmt: skip
            for taps in pupil.taps:
                taps.take()
            sheet.save(aside / "teacher_beside_student.png")
        aside.rename(folder)
        teacher_parameters, student_parameters = pupil.sizes
        self.add(
            kind="stage",
            stage=pupil.stage.name,
            teacher=pupil.stage.teacher,
            folder=str(folder),
            rows=len(batch.real_B),
            teacher_forward_s=teacher_s,
            student_forward_s=student_s,
            teacher_parameters=teacher_parameters,
            student_parameters=student_parameters,
        )
        self.restart_clock()  # none of this is a step's time

    def restart_clock(self) -> None:
        self.sums, self.steps, self.since_s = {}, 0, time.monotonic()
