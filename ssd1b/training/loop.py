"""The training loop of one worker: progressive distillation, step by step.

    for each step of the schedule:
        on entering a stage: carve the student, fetch the teacher, begin a new optimizer
        for each slice this worker is dealt: teacher and student look at the same noisy latents;
            add the gradient of (the sum of the rows' losses) / global batch
        sum the gradients in the order of the slices (gradients.py), clip, step
        every so often: the loss of held-out rows; a checkpoint, written beside the loop
        at the end of a stage: keep its student, draw its pictures
        if any worker was asked to leave: all keep a checkpoint of this step, and leave

Everything random follows the sample, and the order follows the step, so the loop may die anywhere and go on from the
newest checkpoint with any number of workers. Where it is told beforehand, nothing is lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ssd1b.corpus.latents import folder_of
from ssd1b.elastic.feed import Attempt, attempts
from ssd1b.elastic.slices import slot_of, slots_per_step
from ssd1b.training import journal, losses, notice, pupil, switches
from ssd1b.training.conditioning import Conditioning
from ssd1b.training.gradients import summed
from ssd1b.training.laps import Laps
from ssd1b.training.machine import Machine, Waited
from ssd1b.training.newest import ReplacedError
from ssd1b.training.notice import LeftError
from ssd1b.training.report import Report
from ssd1b.training.stages import lr_at, place, total_steps
from ssd1b.training.task import Task as Task  # whoever runs the loop finds it here
from ssd1b.training.together import Together
from ssd1b.training.validation import Validation, held_out
from ssd1b.training.writer import Writer

Rows = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What one worker knows of itself and its group."""

    rank: int
    device: torch.device
    starts: list[Attempt]
    """The starts of the run so far; the last is this one."""
    wrap: Callable[[nn.Module], nn.Module]
    """Makes a model data-parallel over the group."""
    told: Callable[[], notice.Notice | None] = notice.told
    """Returns why this worker should leave, or None."""
    laps: Laps = field(default_factory=Laps)
    """Of this start."""

    @property
    def world_size(self) -> int:
        return self.starts[-1].world_size

    def last_of(self, root: Path) -> bool:
        """Is this worker's start still the run's last?"""
        return len(attempts(root)) <= len(self.starts)


def distill(task: Task, worker: Worker, slices: Iterator[Rows]) -> None:
    """Train from the step where the worker's group begins to the end of the schedule, on the slices it is dealt.

    Raises:
        LeftError: the workers were asked to leave.
        ReplacedError: a later start of the run has taken over.
        ValueError: a gradient was not finite, or what the recipe says cannot be done.
        OSError: a checkpoint could not be written.
    """
    config, root, rank, world = task.config, task.root, worker.rank, worker.world_size
    first, total = worker.starts[-1].first_step, total_steps(config.stages)
    consumed = journal.Lines(root / "consumed" / f"{len(worker.starts) - 1}-{rank}.jsonl")
    report = Report(config, root, rank, worker.starts)
    turns = slots_per_step(task.order.slices, world) // world
    together = Together(world, worker.device)

    conditioning = Conditioning(config.base, worker.device, switches.dtype(config.precision))
    student = pupil.start(config, root, first, worker.device)
    gradients = summed(config.gradients, student, world, worker.wrap)
    validation = None
    if config.validate_rows:
        batches = held_out(folder_of(config.latents), config.validate_rows)
        validation = Validation(batches, conditioning, root, rank, world)
    slices, machine = Waited(slices), Machine(worker.device)
    worker.laps.lap("models")
    with Writer(config.keep_checkpoints, mine=lambda: worker.last_of(root)) as writer:
        for step in range(first, total):
            here = place(config.stages, step)
            if here.stage is not student.stage:
                student = student.following()
                gradients = summed(config.gradients, student, world, worker.wrap)

            terms: dict[str, Tensor] = {}
            for turn in range(turns):
                rows = next(slices)
                if step == first and turn == 0:
                    worker.laps.lap("first slice")
                slot = slot_of(step, turn, rank, task.order.slices, world)
                assert set(rows["slot"]) == {slot}, "a slice is out of order"
                consumed.add(step=step, **journal.taken(rows))
                batch = conditioning.batch(
                    rows, seed=config.seed, drop_share=config.drop_share, mirror_share=config.mirror_share,
                    noise_offset=config.noise_offset,
                )  # fmt: skip
                with gradients.slice(last=turn + 1 == turns):
                    errors_B = student.errors(batch, conditioning.alphas_cumprod)
                    errors_B["loss"] = losses.total(errors_B, here.stage.weights)
                    parts = {
                        name: losses.over_batch(error_B, batch.real_B, config.global_batch)
                        for name, error_B in errors_B.items()
                    }
                    (parts["loss"] * gradients.scale).backward()  # type: ignore[no-untyped-call]
                for name, part in parts.items():
                    told = part.detach().double()
                    terms[name] = terms[name] + told if name in terms else told
            sums, why = together.sum(terms, worker.told())
            lr = lr_at(here.stage, here.step)
            norm = student.update(lr)
            seen = {}
            if report.due(step, here):
                student.check()
                seen = machine.look()
            report.step(step, here, sums | {"lr": lr, "grad_norm": norm, "wait_s": slices.taken()}, seen)
            if step == first:
                worker.laps.lap("first step")
                report.ready(step + 1, worker.laps.seconds)

            leaves = why is not None and step + 1 < total
            kept = here.last or (step + 1) % config.checkpoint_steps == 0
            if validation and kept:
                loss = validation.judge(student, step + 1)
                report.add(kind="validation", step=step + 1, stage=here.stage.name, loss=loss)
            if rank == 0 and (kept or leaves):
                if not worker.last_of(root):
                    raise ReplacedError(f"start {len(worker.starts)} of run {config.run} is no longer its last")
                if here.last:  # before the checkpoint: once that exists, a restart would enter the next stage
                    report.stage_end(student, batch, conditioning.prompts)
                student.check()
                state = {"stage": student.stage.name, "run": config.run}
                writer.save(root, step + 1, student.tensors(), state)
            for folder in writer.finished():
                report.checkpoint(folder)
            if why is not None and leaves:
                writer.flush()
                if world > 1:  # or Ray Train would end rank 0 for another's leaving, in the middle of writing
                    torch.distributed.barrier()
                report.leave(step + 1, why)
                raise LeftError(f"asked to leave ({why}) after step {step + 1}")
        writer.flush()
        for folder in writer.finished():
            report.checkpoint(folder)
