"""jobs.benchmark train: what a training step costs.

Measured here, on the nano family: our step against plain PyTorch and against the passes that no step can spare, one
after the other in turns; then a real run through Ray, its rows per second and its wait for data. Estimated, as no GPU
is asked for: work, hours, dollars and memory of the published recipe at full size. `ssd1b.trials.gpu_step` measures
that on a machine with a GPU.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ssd1b.command import nearest, show
from ssd1b.elastic.rows import Latents
from ssd1b.family.table import PUBLISHED
from ssd1b.recipes import distill as recipes
from ssd1b.recipes.benchmark import TrainStep
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.sizes import Size
from ssd1b.training.machine import GIB
from ssd1b.trials.cost import StageCost, Work, base_of, published_mfu, stage_costs
from ssd1b.trials.faults import write_latents
from ssd1b.trials.full_size_text import CLIP_L_WEIGHTS, OPEN_CLIP_G_WEIGHTS
from ssd1b.trials.memory import fitting_rows, fixed, kept_bytes
from ssd1b.trials.step_contest import BARE, OURS, PLAIN, contest
from ssd1b.trials.throughput import throughput

PUBLISHED_HOURS = 200.0
"""Of SSD-1B's training on four A100 80 GB (blog.segmind.com, the announcement)."""
ROWS = 512
"""Rows of latents that are made up."""
MOST_STEPS = 1_000_000
"""More than any contender takes."""


def train(config: TrainStep) -> dict[str, Any]:
    """Measure and estimate what a recipe describes, print tables and return the same numbers.

    Raises:
        ValueError: no such recipe or size, or no such student.
        RuntimeError: the workers could not train.
    """
    estimate = full_size(config)
    with TemporaryDirectory(prefix="train-", dir=config.scratch or None) as scratch:
        folder = Path(scratch)
        write_latents(folder / "latents", ROWS, config.seed)
        latents = Latents.open(folder / "latents")
        alone = contest(recipe(config, MOST_STEPS), latents, folder / "ours", steps=config.steps, rounds=config.rounds)
        through_ray = throughput(recipe(config, config.worker_steps), latents, folder, config.workers)
    turns = alone["turns"]
    return {
        "alike": asdict(alone["alike"]),
        "step": turns,
        "ours_over_plain": turns[PLAIN]["wall_ratio"],
        "ours_over_the_passes_alone": turns[BARE]["wall_ratio"],
        "step_ms": turns[OURS]["wall_ms"],
        "workers": through_ray,
        "full_size_estimate": estimate,
    }


def recipe(config: TrainStep, steps: int) -> Distillation:
    """Return a distillation in one stage that neither writes checkpoints nor draws pictures on its way."""
    stage = Stage(name="all", teacher=config.base, carve=("mid", "down", "up"), steps=steps, lr=1e-4, warmup_steps=0)
    return Distillation(
        run="train", base=config.base, latents="made-up", stages=(stage,), registered_name="train",
        student=config.student, global_batch=config.global_batch, slices=config.slices, checkpoint_steps=MOST_STEPS,
        log_steps=1, seed=config.seed,
    )  # fmt: skip


def full_size(config: TrainStep) -> dict[str, Any]:
    """Estimate a recipe's cost at full size, print the tables and return it.

    Raises:
        ValueError: no such recipe or size, or a recipe whose student is no member of the family.
    """
    if config.full_size not in recipes.RECIPES:
        known = ", ".join(recipes.RECIPES)
        raise ValueError(
            f"full_size={config.full_size!r} is no recipe{nearest(config.full_size, recipes.RECIPES)}; recipes: {known}"
        )
    told, size = recipes.RECIPES[config.full_size](), Size.parse(config.size)
    stages = list(stage_costs(told, size, gpus=config.gpus, gpu_tflops=config.gpu_tflops, mfu=config.mfu))
    last = stages[-1].work
    rows = sum(stage.rows for stage in stages)
    hours = sum(stage.hours for stage in stages)
    at_once = rows * last.row / (config.gpus * config.gpu_tflops * config.mfu * 3600)
    print_stages(config, stages, hours)
    result = {
        "recipe": config.full_size,
        "size": config.size,
        "assumed": {name: getattr(config, name) for name in ("gpus", "gpu_tflops", "mfu", "gpu_hour_usd")},
        "stages": {
            stage.stage: {"rows": stage.rows, "row_tflops": round(stage.work.row, 3), "hours": round(stage.hours, 1)}
            for stage in stages
        },
        "row_tflops": work_of_row(last),
        "hours": round(hours, 1),
        "usd": round(hours * config.gpus * config.gpu_hour_usd),
        "hours_carved_at_once": round(at_once, 1),
        "memory": memory(config, told.student, base_of(told), size),
    }
    if told.student == "ssd-1b":
        mfu = published_mfu(rows, last, gpus=config.gpus, gpu_tflops=config.gpu_tflops, hours=PUBLISHED_HOURS)
        show(f"Segmind's {PUBLISHED_HOURS:.0f} hours for as many rows, carved at once, are an MFU of {mfu:.1%}")
        result |= {"published_hours": PUBLISHED_HOURS, "published_mfu": round(mfu, 3)}
    return result


def print_stages(config: TrainStep, stages: Sequence[StageCost], hours: float) -> None:
    show(f"{config.full_size} at {config.size} on {config.gpus} GPUs of {config.gpu_tflops:g} TFLOPS at an assumed MFU "
         f"of {config.mfu:.0%}: an estimate")  # fmt: skip
    show(f"{'stage':12s}{'rows':>12s}{'TFLOPs/row':>12s}{'rows/s':>10s}{'hours':>10s}")
    for stage in stages:
        rate = stage.rows / stage.hours / 3600
        show(f"{stage.stage:12s}{stage.rows:12,d}{stage.work.row:12.2f}{rate:10.1f}{stage.hours:10.1f}")
    show(f"all: {hours:.0f} hours, ${hours * config.gpus * config.gpu_hour_usd:,.0f} at ${config.gpu_hour_usd:g} a "
         f"GPU-hour")  # fmt: skip


def work_of_row(work: Work) -> dict[str, float]:
    """Return the work of a row by its parts, and how much more it is than the passes of teacher and student."""
    return {
        **{name: round(value, 3) for name, value in asdict(work).items()},
        "all": round(work.row, 3),
        "over_the_passes_alone": round(work.row / (work.teacher + 3 * work.student), 4),
    }


def memory(config: TrainStep, student: str, teacher: str, size: Size) -> dict[str, Any]:
    """Estimate the memory of a step of the full-size student and how many rows fit; print both."""
    text = CLIP_L_WEIGHTS + (OPEN_CLIP_G_WEIGHTS if teacher == "sdxl" else 0)
    held = fixed(PUBLISHED[teacher], PUBLISHED[student], text)
    table: dict[str, Any] = {f"{name}_gib": round(value / GIB, 2) for name, value in asdict(held).items()}
    for name, half in (("bfloat16", True), ("float32", False)):
        one, two = (kept_bytes(student, size, rows, half=half) for rows in (1, 2))
        fits = fitting_rows(held.total, one, two - one, config.gpu_gib)
        table[name] = {
            "first_row_gib": round(one / GIB, 2), "further_row_gib": round((two - one) / GIB, 2), "fits": fits
        }  # fmt: skip
        show(f"memory, estimated: {held.total / GIB:.1f} GiB for the models, {one / GIB:.1f} for a row, "
             f"{(two - one) / GIB:.1f} for each further one with activations in {name}: {fits} rows fit "
             f"{config.gpu_gib:g} GiB")  # fmt: skip
    return table
