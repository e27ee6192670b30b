"""The student of one stage with its teacher, its optimizer and the taps between the two."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ssd1b.family.carve import carve, keep_map, parameters
from ssd1b.family.keep import KeepMap, everything, student_config
from ssd1b.family.start import quiet_start
from ssd1b.models.files import load_unet
from ssd1b.recipes.distill import Distillation
from ssd1b.training import checkpoint, ema, switches
from ssd1b.training.conditioning import Batch
from ssd1b.training.losses import min_snr, terms
from ssd1b.training.moments import moments, restore_moments
from ssd1b.training.prediction import check_teacher, converted
from ssd1b.training.stages import carved_before, carved_by, place
from ssd1b.training.taps import Taps, tap_places

# B batch rows, C latent channels, H latent height, W latent width


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
        self,
        student: UNet2DConditionModel,
        index: int,
        plan: Plan,
        config: Distillation,
        device: torch.device,
        *,
        updates: int = 0,
    ) -> None:
        """Take the student as stage `index` trains it, after so many updates of that stage, and fetch its teacher.

        Raises:
            ValueError: no such teacher, one that cannot be compared, or a switch that this machine lacks something for.
        """
        self.index, self.plan, self.config, self.device, self.updates = index, plan, config, device, updates
        self.stage, self.kept = config.stages[index], plan.while_in(config, index)
        self.dtype = switches.dtype(config.precision)
        self.student = student.to(device).train()
        self.teacher_kind = check_teacher(self.stage.teacher, config.base)
        teacher = load_unet(self.stage.teacher, self.dtype)
        self.teacher = teacher.to(switches.teacher_device(config.teacher_device, device)).requires_grad_(False)
        compared = bool(self.stage.weights.feature)
        places = tap_places(self.teacher, self.student, self.kept, config.features) if compared else {}
        self.taps = (Taps(self.teacher, {name: name for name in places.values()}), Taps(self.student, places))
        self.parameters = dict(self.student.named_parameters())
        self.names = list(self.parameters)
        self.optimizer = switches.optimizer(
            config.optimizer, self.student.parameters(), device, lr=self.stage.lr, weight_decay=config.weight_decay
        )
        self.average = None if config.ema_decay is None else ema.begun(self.parameters)
        """The moving average of the weights, by name."""
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        """Whether all gradients of this stage were; on the device, so that a step need not wait to know."""
        if config.activation_checkpointing:
            self.student.enable_gradient_checkpointing()
        if config.compiled:
            self.student.compile(backend=switches.COMPILER)
        self.module: nn.Module = self.student
        """What is called: the student, or its data-parallel wrapper."""

    def errors(self, batch: Batch, alphas_cumprod: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss per row: one pass of the teacher, one of the student."""
        teacher_taps, student_taps = self.taps
        weights, a_B = self.stage.weights, alphas_cumprod[batch.timestep_B]
        asked = bool(weights.output or weights.feature)
        teacher_BCHW = None
        if asked:
            with torch.no_grad(), self.autocast(self.teacher.device):
                teacher_BCHW = self.teacher(**batch.ask(self.teacher.device))[0]
        with self.autocast():
            student_BCHW = self.module(**batch.ask())[0]
        # only now: the student's work is under way where the teacher's has to be waited for
        theirs = {name: feature.to(self.device) for name, feature in teacher_taps.take().items()} if asked else {}
        if teacher_BCHW is not None:
            teacher_BCHW = converted(
                teacher_BCHW.to(self.device), batch.noisy_BCHW, a_B, said=self.teacher_kind, wanted=batch.kind
            )
        snr_B = None if weights.snr_gamma is None else min_snr(a_B, weights.snr_gamma, batch.kind)
        normalise = self.config.normalise
        return terms(
            student_BCHW, teacher_BCHW, batch.target_BCHW, student_taps.take(), theirs, snr_B, normalise=normalise
        )

    def autocast(self, device: torch.device | None = None) -> AbstractContextManager[Any]:
        """Within it, passes are in the recipe's precision; device is where, the student's by default."""
        return torch.autocast((device or self.device).type, self.dtype, enabled=self.dtype != torch.float32)

    def update(self, lr: float) -> Tensor:
        """Take one optimizer step with the gradients there are, and return their norm before clipping.

        Nothing here waits for the device: a gradient that is not finite is found by `check`. After the last update of
        a stage the student is the stage's result: the average, where one is kept.
        """
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        self.finite.logical_and_(torch.isfinite(norm))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None and self.config.ema_decay is not None:
            ema.fold_in(self.average, self.parameters, ema.decay_at(self.updates, self.config.ema_decay))
        self.updates += 1
        if self.average is not None and self.updates == self.stage.steps:
            self.become(self.average)
        return norm

    def check(self) -> None:
        """Wait for the device and look whether the gradients were finite; `tensors` looks too.

        Raises:
            ValueError: one was not.
        """
        if not self.finite:
            lr = self.optimizer.param_groups[0]["lr"]
            raise ValueError(f"the gradient is not finite in stage {self.stage.name!r}: lower its lr (now {lr:g})")

    @torch.no_grad()
    def become(self, weights: Mapping[str, Tensor]) -> None:
        """Take these weights, by name."""
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the student has the weights that would be the result if the stage ended now."""
        average = self.average
        if average is None:
            yield
            return
        own = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = average[name]
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = own[name]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return what a checkpoint holds, by file and name.

        Raises:
            ValueError: a gradient was not finite.
        """
        self.check()
        held = {"student": dict(self.student.state_dict()), "moments": moments(self.optimizer, self.names)}
        return held if self.average is None else held | {"ema": self.average}

    def save(self, root: Path, step: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint that does not depend on the number of workers.

        Raises:
            ValueError: a gradient was not finite.
            OSError: the disk is full or not writable.
        """
        return checkpoint.save(root, step, self.tensors(), {"stage": self.stage.name, **state})

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `tensors` returned, but for the student's weights, which the pupil is made with."""
        restore_moments(self.optimizer, self.names, tensors["moments"])
        if self.average is not None:
            for name, mean in self.average.items():
                mean.copy_(tensors["ema"][name])

    def following(self) -> "Pupil":
        """Let go of the teacher and the taps, and return the pupil of the next stage: carved, with a new optimizer."""
        for taps in self.taps:
            taps.close()
        now = self.plan.while_in(self.config, self.index + 1)
        student = carve(self.student, now.inside(self.kept))
        return Pupil(student, self.index + 1, self.plan, self.config, self.device)

    @torch.no_grad()
    def forward_seconds(self, batch: Batch, rounds: int = 3) -> tuple[float, float]:
        """Return the median seconds of a forward pass of teacher and student over a batch, neither compiled."""

        def once(unet: UNet2DConditionModel) -> float:
            asked = batch.ask(unet.device)
            started = time.perf_counter()
            with self.autocast(unet.device), torch.compiler.set_stance("force_eager"):
                unet(**asked)
            if unet.device.type == "cuda":
                torch.cuda.synchronize(unet.device)
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
        ValueError: a stage would leave what diffusers cannot build, or has a teacher of another noise schedule.
    """
    here = place(config.stages, step)
    base = load_unet(config.base)
    whole = everything(base.config)
    plan = Plan(whole, keep_map(base.config, config.student))
    for index, stage in enumerate(config.stages):  # now, not hours from here, is the time to refuse
        student_config(base.config, plan.while_in(config, index))
        check_teacher(stage.teacher, config.base)
    now = plan.while_in(config, here.index)
    if step == 0:
        student = carve(base, now)
        return Pupil(unlearned(student, config.seed) if config.from_scratch else student, 0, plan, config, device)
    tensors, _ = checkpoint.load(checkpoint.step_folder(root, step))
    before = plan.student.only(carved_before(config.stages, step), whole)
    student = carve(base, before)
    student.load_state_dict(tensors["student"])
    if here.step == 0:
        return Pupil(carve(student, now.inside(before)), here.index, plan, config, device)
    pupil = Pupil(student, here.index, plan, config, device, updates=here.step)
    pupil.restore(tensors)
    return pupil


def unlearned(unet: UNet2DConditionModel, seed: int) -> UNet2DConditionModel:
    """Return a UNet of the same anatomy with random weights, the same on every worker."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return quiet_start(UNet2DConditionModel.from_config(unet.config)).eval()
