"""Training steps at real size on one GPU, with random weights: python -m ssd1b.trials.gpu_step full

It asks for neither Ray nor MLflow, so it runs on a bare machine. It measures, for micro-batches of 1, 2, 4, ... rows
until one does not fit: rows per second, MFU, the peak of memory, how long the step takes against the passes that none
can spare, and where the time goes. `small` runs the same code at nano width on a CPU.

The steps are the training loop's own: the same conditioning, pupil, losses and update. What the loop does beside them
(journal, report, notices) costs what `jobs.benchmark train` measures.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ssd1b.command import main, show
from ssd1b.family.measure import measure
from ssd1b.family.table import member
from ssd1b.provenance import machine
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.recipes.gpu_step import RECIPES, GpuStep
from ssd1b.sizes import Size
from ssd1b.training import losses, pupil, switches
from ssd1b.training.conditioning import Batch, Conditioning
from ssd1b.training.machine import GIB, process_gib
from ssd1b.training.pupil import Pupil
from ssd1b.trials.cost import Work, text_tflops
from ssd1b.trials.plain_loop import bare_passes
from ssd1b.trials.random_pipeline import write_pipeline

PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0}
"""Of bfloat16 multiplications, dense, by a word of the GPU's name (NVIDIA's data sheets, SXM)."""
LR = 1e-5

Rows = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Trainer:
    """What a step needs."""

    recipe: Distillation
    conditioning: Conditioning
    student: Pupil

    def step(self, slices: Sequence[Rows]) -> None:
        """Take a step as loop.distill does."""
        for rows in slices:
            self.backward(self.loss(self.batch(rows)))
        self.student.update(LR)

    def batch(self, rows: Rows) -> Batch:
        return self.conditioning.batch(rows, seed=self.recipe.seed, drop_share=self.recipe.drop_share)

    def loss(self, batch: Batch) -> torch.Tensor:
        errors_B = self.student.errors(batch, self.conditioning.alphas_cumprod)
        loss_B = losses.total(errors_B, self.student.stage.weights)
        return losses.over_batch(loss_B, batch.real_B, self.recipe.global_batch)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def passes_alone(self, batches: Sequence[Batch]) -> None:
        """Take a step that does only what none can spare, on batches that are ready."""
        student = self.student
        for batch in batches:
            with student.autocast():
                bare_passes(student.teacher, student.student, batch.ask(), batch.noise_BCHW)
            for taps in student.taps:
                taps.take()
        student.optimizer.step()
        student.optimizer.zero_grad(set_to_none=True)


def gpu_step(config: GpuStep) -> dict[str, Any]:
    """Measure what a recipe describes, print the table and return it.

    Raises:
        ValueError: no such teacher, student or size; a gradient that was not finite.
    """
    size = Size.parse(config.size)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = next((tflops for word, tflops in PEAK_TFLOPS.items() if word in name), None)
    trainer = begun(config, device)
    work = work_of_row(trainer, config, size)
    show(f"{name}: {config.teacher} to {config.student} at {config.size}, {work.row:.4g} TFLOPs a row, "
         f"{config.rows_per_step} rows a step")  # fmt: skip
    show(f"{'micro-batch':>12s}{'rows/s':>10s}{'TFLOPS':>10s}{'MFU':>8s}{'peak GiB':>10s}{'over the passes':>17s}")
    table: dict[int, Any] = {}
    rows, refused = 1, None
    while rows <= config.most_rows and refused is None:
        try:
            table[rows] = measured(trainer, config, size, rows, work, peak)
        except torch.OutOfMemoryError as error:
            refused = rows
            show(f"{rows:12d} rows do not fit: {str(error).splitlines()[0]}")
        else:
            show_row(rows, table[rows])
            rows *= 2
        forget(trainer)
    trainer.student.check()
    return {
        "gpu": name,
        "machine": machine(["torch", "transformers"]),
        "row_tflops": round(work.row, 6),
        "micro_batches": table,
        "does_not_fit": refused,
        "fastest": max(table, key=lambda each: float(table[each]["rows_per_s"])) if table else None,
    }


def begun(config: GpuStep, device: torch.device) -> Trainer:
    """Return conditioning and student of models with random weights, loaded from files as any others are."""
    with TemporaryDirectory(prefix="gpu-step-", dir=config.scratch or None) as scratch:
        source = write_pipeline(Path(scratch) / "teacher", config.teacher, config.seed)
        stage = Stage(name="all", teacher=source, carve=("mid", "down", "up"), steps=1_000_000, lr=LR)
        recipe = Distillation(
            run="gpu-step", base=source, latents="-", stages=(stage,), registered_name="-", student=config.student,
            global_batch=config.rows_per_step, precision=config.precision, optimizer=config.optimizer,
            activation_checkpointing=config.activation_checkpointing, compiled=config.compiled, seed=config.seed,
        )  # fmt: skip
        show(f"random weights written, {process_gib():.1f} GiB held")
        conditioning = Conditioning(source, device, switches.dtype(config.precision))
        return Trainer(recipe, conditioning, pupil.start(recipe, Path(scratch), 0, device))


def work_of_row(trainer: Trainer, config: GpuStep, size: Size) -> Work:
    towers = [(type(tower), tower.config.to_dict()) for tower in trainer.conditioning.prompts.towers]
    student = {key: value for key, value in trainer.student.student.config.items() if not key.startswith("_")}
    return Work(
        text=text_tflops(towers),
        teacher=measure(member(config.teacher), size).tflops,
        student=measure(student, size).tflops,
    )


def measured(
    trainer: Trainer, config: GpuStep, size: Size, rows: int, work: Work, peak: float | None
) -> dict[str, Any]:
    """Return the figures of steps of micro-batches of so many rows.

    Raises:
        torch.OutOfMemoryError: they do not fit.
    """
    device = trainer.student.device
    turns = max(1, config.rows_per_step // rows)
    slices = [made_up(size, rows, turn * rows, config.seed) for turn in range(turns)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step_s = seconds(lambda: trainer.step(slices), config, device)
    peak_gib = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else process_gib()
    ready = [trainer.batch(each) for each in slices]
    passes_s = seconds(lambda: trainer.passes_alone(ready), config, device)
    tflops = turns * rows * work.row / step_s
    return {
        "rows_per_s": round(turns * rows / step_s, 3),
        "step_s": round(step_s, 4),
        "tflops": round(tflops, 4),
        "mfu": None if peak is None else round(tflops / peak, 4),
        "peak_gib": round(peak_gib, 2),
        "over_the_passes_alone": round(step_s / passes_s, 4),
        "parts_s": parts(trainer, slices, device),
    }


def seconds(step: Callable[[], None], config: GpuStep, device: torch.device) -> float:
    """Return the mean seconds of a step; the host may run ahead of the device from one to the next, as in the loop."""
    for _ in range(config.warm_up):
        step()
    wait(device)
    started_s = time.perf_counter()
    for _ in range(config.steps):
        step()
    wait(device)
    return (time.perf_counter() - started_s) / config.steps


def parts(trainer: Trainer, slices: Sequence[Rows], device: torch.device) -> dict[str, float]:
    """Return the seconds of each part of one step, the device waited for after each."""
    taken = dict.fromkeys(("rows and text", "teacher, student and losses", "backward", "update"), 0.0)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started_s = time.perf_counter()
        done = work()
        wait(device)
        taken[name] += time.perf_counter() - started_s
        return done

    for rows in slices:
        batch = timed("rows and text", partial(trainer.batch, rows))
        loss = timed("teacher, student and losses", partial(trainer.loss, batch))
        timed("backward", partial(trainer.backward, loss))
    timed("update", partial(trainer.student.update, LR))
    return {name: round(value, 4) for name, value in taken.items()}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget(trainer: Trainer) -> None:
    """Let go of what a step that did not fit has left."""
    trainer.student.optimizer.zero_grad(set_to_none=True)
    for taps in trainer.student.taps:
        taps.caught = {}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def show_row(rows: int, row: Mapping[str, Any]) -> None:
    mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
    show(f"{rows:12d}{row['rows_per_s']:10.2f}{row['tflops']:10.4g}{mfu:>8s}{row['peak_gib']:10.2f}"
         f"{row['over_the_passes_alone']:17.3f}")  # fmt: skip


def made_up(size: Size, count: int, first: int, seed: int) -> Rows:
    """Return rows as the loop is dealt them, of chance."""
    random = np.random.default_rng((seed, first))
    shape = (4, size.latent.height, size.latent.width)
    sides = {"original_height": size.height, "original_width": size.width,
             "target_height": size.height, "target_width": size.width, "crop_top": 0, "crop_left": 0}  # fmt: skip
    return {
        "sample_id": list(range(first, first + count)),
        "epoch": [0] * count,
        "real": [True] * count,
        "captions": [[f"a drawing of thing {i}"] for i in range(first, first + count)],
        "mean": [random.normal(0, 0.9, shape).astype(np.float16).tobytes() for _ in range(count)],
        "std": [np.full(shape, 0.02, np.float16).tobytes() for _ in range(count)],
        **{name: [value] * count for name, value in sides.items()},
    }


if __name__ == "__main__":
    main(RECIPES, gpu_step)
