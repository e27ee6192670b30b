"""The training loop of one worker: progressive distillation, step by step.

    for each step of the schedule:
        on entering a stage: carve the student, fetch the teacher, begin a new optimizer
        for each slice this worker is dealt: teacher and student look at the same noisy latents;
            add the gradient of (the sum of the rows' losses) / global batch
        sum the gradients over the workers, clip, step
        every so often: checkpoint; at the end of a stage: keep its student, draw its pictures

Everything random follows the sample, and the order follows the step, so the loop may die anywhere and go on from the
newest checkpoint with any number of workers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ssd1b.elastic.feed import Attempt
from ssd1b.elastic.slices import Order, slot_of, slots_per_step
from ssd1b.recipes.distill import Distillation
from ssd1b.training import checkpoint, journal, losses, pupil
from ssd1b.training.conditioning import Conditioning
from ssd1b.training.report import Report
from ssd1b.training.stages import lr_at, place, total_steps

Rows = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every worker of a run is told."""

    config: Distillation
    root: Path
    order: Order
    launched_s: float
    """When the job was started, seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What one worker knows of itself and its group."""

    rank: int
    device: torch.device
    starts: list[Attempt]
    """The starts of the run so far; the last is this one."""
    wrap: Callable[[nn.Module], nn.Module]
    """Makes a model data-parallel over the group."""

    @property
    def world_size(self) -> int:
        return self.starts[-1].world_size


def distill(task: Task, worker: Worker, slices: Iterator[Rows]) -> None:
    """Train from the step where the worker's group begins to the end of the schedule, on the slices it is dealt."""
    config, root, rank, world = task.config, task.root, worker.rank, worker.world_size
    first = worker.starts[-1].first_step
    conditioning = Conditioning(config.base, worker.device)
    consumed = journal.Lines(root / "consumed" / f"{len(worker.starts) - 1}-{rank}.jsonl")
    report = Report(config, root, rank, worker.starts)
    turns = slots_per_step(task.order.slices, world) // world

    student = pupil.start(config, root, first, worker.device)
    student.module = worker.wrap(student.student)
    for step in range(first, total_steps(config.stages)):
        here = place(config.stages, step)
        if here.stage is not student.stage:
            student = student.following()
            student.module = worker.wrap(student.student)

        summed: dict[str, Tensor] = {}
        for turn in range(turns):
            rows = next(slices)
            assert set(rows["slot"]) == {slot_of(step, turn, rank, task.order.slices, world)}, "a slice is out of order"
            consumed.add(step=step, **journal.taken(rows))
            batch = conditioning.batch(
                rows, seed=config.seed, drop_share=config.drop_share, mirror_share=config.mirror_share
            )
            with student.unsynced() if turn + 1 < turns else nullcontext():
                errors_B = student.errors(batch, conditioning.alphas_cumprod)
                errors_B["loss"] = losses.total(errors_B, here.stage.weights)
                parts = {
                    name: losses.over_batch(error_B, batch.real_B, config.global_batch)
                    for name, error_B in errors_B.items()
                }
                # the data-parallel wrapper divides by the world size
                (parts["loss"] * world).backward()  # type: ignore[no-untyped-call]
            for name, part in parts.items():
                summed[name] = summed.get(name, torch.zeros_like(part)) + part.detach()
        lr = lr_at(here.stage, here.step)
        norm = student.update(lr)
        report.step(step, here, over_workers(summed, world) | {"lr": lr, "grad_norm": float(norm)})

        if here.last or (step + 1) % config.checkpoint_steps == 0:
            if rank == 0:
                if here.last:  # before the checkpoint: once that exists, a restart would enter the next stage
                    report.stage_end(student, batch, conditioning.prompts)
                report.checkpoint(student.save(root, step + 1, {"run": config.run}))
                checkpoint.retain(root, config.keep_checkpoints)
            if world > 1:
                torch.distributed.barrier()


def over_workers(parts: dict[str, Tensor], world: int) -> dict[str, float]:
    """Return the sums over all workers; one collective for all terms."""
    values = torch.stack(list(parts.values())).float()
    if world > 1:
        torch.distributed.all_reduce(values)
    return dict(zip(parts, values.tolist(), strict=True))
