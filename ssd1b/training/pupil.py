"""The student of one stage with its teacher, its optimizer and the taps between the two."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.family.carve import carve, keep_map, parameters
from ssd1b.family.keep import KeepMap, everything, student_config
from ssd1b.models.files import load_unet
from ssd1b.recipes.distill import Distillation
from ssd1b.training import checkpoint
from ssd1b.training.conditioning import Batch
from ssd1b.training.losses import min_snr, terms
from ssd1b.training.moments import moments, restore_moments
from ssd1b.training.stages import carved_before, carved_by, place
from ssd1b.training.taps import Taps, tap_places

# B batch rows

BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Plan:
    """What a run keeps of its base, in the base's numbering."""

    whole: KeepMap
    student: KeepMap

    def while_in(self, config: Distillation, index: int) -> KeepMap:
        """Return what is kept while stage `index` is trained."""
        return self.student.only(carved_by(config.stages, index), self.whole)


class Pupil:
    """One stage's student, trained in place."""

    def __init__(
        self, student: UNet2DConditionModel, index: int, plan: Plan, config: Distillation, device: torch.device
    ) -> None:
        """Take the student as stage `index` trains it, and fetch its teacher."""
        self.index, self.plan, self.config, self.device = index, plan, config, device
        self.stage, self.kept = config.stages[index], plan.while_in(config, index)
        self.dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.student = student.to(device).train()
        self.teacher = load_unet(self.stage.teacher, self.dtype).to(device).requires_grad_(False)
        places = tap_places(self.teacher, self.student, self.kept)
        self.taps = (Taps(self.teacher, {name: name for name in places.values()}), Taps(self.student, places))
        self.names = [name for name, _ in self.student.named_parameters()]
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=self.stage.lr, betas=BETAS, weight_decay=config.weight_decay
        )
        self.module: nn.Module = self.student
        """What is called: the student, or its data-parallel wrapper."""

    def errors(self, batch: Batch, alphas_cumprod: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss per row: one pass of the teacher, one of the student."""
        teacher_taps, student_taps = self.taps
        with self.autocast():
            with torch.no_grad():
                teacher_BCHW = self.teacher(**batch.ask())[0]
            student_BCHW = self.module(**batch.ask())[0]
        gamma = self.stage.weights.snr_gamma
        snr_B = None if gamma is None else min_snr(alphas_cumprod, batch.timestep_B, gamma)
        return terms(student_BCHW, teacher_BCHW, batch.noise_BCHW, student_taps.take(), teacher_taps.take(), snr_B)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def unsynced(self) -> AbstractContextManager[Any]:
        """Within it, gradients are accumulated without a reduction over the workers."""
        wrapped = isinstance(self.module, nn.parallel.DistributedDataParallel)
        return self.module.no_sync() if wrapped else nullcontext()  # type: ignore[operator]

    def update(self, lr: float) -> Tensor:
        """Take one optimizer step with the gradients there are, and return their norm before clipping.

        Raises:
            ValueError: the gradient is not finite.
        """
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        if not torch.isfinite(norm):
            raise ValueError(f"the gradient is not finite in stage {self.stage.name!r}: lower its lr (now {lr:g})")
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def save(self, root: Path, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint that does not depend on the number of workers."""
        tensors = {"student": self.student.state_dict(), "moments": moments(self.optimizer, self.names)}
        return checkpoint.save(root, step, tensors, {"stage": self.stage.name, **state})

    def following(self) -> "Pupil":
        """Let go of the teacher and the taps, and return the pupil of the next stage: carved, with a new optimizer."""
        for taps in self.taps:
            taps.close()
        now = self.plan.while_in(self.config, self.index + 1)
        student = carve(self.student, now.inside(self.kept))
        return Pupil(student, self.index + 1, self.plan, self.config, self.device)

    @torch.no_grad()
    def forward_seconds(self, batch: Batch, rounds: int = 3) -> tuple[float, float]:
        """Return the median seconds of a forward pass of teacher and student over a batch."""

        def once(unet: UNet2DConditionModel) -> float:
            started = time.perf_counter()
            with self.autocast():
                unet(**batch.ask())
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return time.perf_counter() - started

        seconds = []
        for unet, taps in zip((self.teacher, self.student), self.taps, strict=True):
            seconds.append(sorted(once(unet) for _ in range(rounds))[rounds // 2])
            taps.take()
        return seconds[0], seconds[1]

    @property
    def sizes(self) -> tuple[int, int]:
        """Parameters of teacher and student."""
        return parameters(self.teacher), parameters(self.student)


def start(config: Distillation, root: Path, step: int, device: torch.device) -> Pupil:
    """Return the pupil as it stood before a step: from the checkpoint of that step, or from the base at step 0.

    Where the checkpoint is a stage's result, the next stage is entered: it carves, and begins with a fresh optimizer.

    Raises:
        ValueError: a stage would leave what diffusers cannot build.
    """
    here = place(config.stages, step)
    base = load_unet(config.base)
    whole = everything(base.config)
    plan = Plan(whole, keep_map(base.config, config.student))
    for index in range(len(config.stages)):
        student_config(base.config, plan.while_in(config, index))  # now, not hours from here, is the time to refuse
    now = plan.while_in(config, here.index)
    if step == 0:
        return Pupil(carve(base, now), here.index, plan, config, device)
    tensors, _ = checkpoint.load(checkpoint.step_folder(root, step))
    before = plan.student.only(carved_before(config.stages, step), whole)
    student = carve(base, before)
    student.load_state_dict(tensors["student"])
    if here.step == 0:
        return Pupil(carve(student, now.inside(before)), here.index, plan, config, device)
    pupil = Pupil(student, here.index, plan, config, device)
    restore_moments(pupil.optimizer, pupil.names, tensors["moments"])
    return pupil
