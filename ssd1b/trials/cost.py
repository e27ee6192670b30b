"""What a distillation costs at full size, estimated from its recipe without a GPU: work, hours, dollars.

Work is counted on the meta device, by PyTorch's own FLOP counter. Hours follow from an assumed MFU, the share of a
GPU's peak that this work gets; so they are an estimate, and as good as that assumption.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ssd1b.family.carve import keep_map
from ssd1b.family.keep import everything, student_config
from ssd1b.family.measure import measure
from ssd1b.family.table import FAMILY, teacher_of
from ssd1b.recipes.distill import Distillation
from ssd1b.sizes import Size
from ssd1b.training.stages import carved_by
from ssd1b.trials.full_size_text import CLIP_L, OPEN_CLIP_G

HOUR_S = 3600.0
Tower: TypeAlias = tuple[type[CLIPTextModel | CLIPTextModelWithProjection], dict[str, Any]]
"""Class and config of a text tower."""
SDXL_LINE_TEXT: tuple[Tower, ...] = ((CLIPTextModel, CLIP_L), (CLIPTextModelWithProjection, OPEN_CLIP_G))
SD15_LINE_TEXT = SDXL_LINE_TEXT[:1]


@dataclass(frozen=True, kw_only=True)
class Work:
    """10^12 floating-point operations of one row of a step; a multiplication with its addition is 2."""

    text: float
    teacher: float
    student: float
    """Of its forward pass; the backward pass costs twice as much, for inputs and for weights (at 1024 px SSD-1B's is
    counted 0.3 % below that, since the text gets no gradient)."""

    @property
    def row(self) -> float:
        return self.text + self.teacher + 3 * self.student


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """A stage of a recipe, estimated."""

    stage: str
    rows: int
    work: Work
    hours: float


def stage_costs(
    recipe: Distillation, size: Size | None, *, gpus: int, gpu_tflops: float, mfu: float
) -> Iterator[StageCost]:
    """Yield the cost of each stage of a recipe for the full size, whose student is what is left by then.

    Raises:
        ValueError: the recipe's student is no member of the family that was carved from another.
    """
    base = FAMILY[base_of(recipe)]
    whole, student = everything(base), keep_map(base, recipe.student)
    towers = SDXL_LINE_TEXT if "addition_embed_type" in base else SD15_LINE_TEXT
    text, teacher = text_tflops(towers), measure(base, size).tflops
    for index, stage in enumerate(recipe.stages):
        kept = student.only(carved_by(recipe.stages, index), whole)
        work = Work(text=text, teacher=teacher, student=measure(student_config(base, kept), size).tflops)
        rows = stage.steps * recipe.global_batch
        hours = rows * work.row / (gpus * gpu_tflops * mfu) / HOUR_S
        yield StageCost(stage=stage.name, rows=rows, work=work, hours=hours)


def base_of(recipe: Distillation) -> str:
    """Return the member of the family that a recipe's student is carved from."""
    base = teacher_of(recipe.student) if recipe.student in FAMILY else None
    if base is None:
        students = [name for name in FAMILY if teacher_of(name)]
        raise ValueError(f"student={recipe.student!r} has no teacher in the family: choose from {', '.join(students)}")
    return base


def text_tflops(towers: Iterable[Tower]) -> float:
    """Return the work of some text towers on one text of all the tokens that they read."""
    return sum(tower_tflops(*tower) for tower in towers)


def tower_tflops(kind: type[CLIPTextModel | CLIPTextModelWithProjection], config: dict[str, Any]) -> float:
    """Return the work of one of them."""
    with torch.device("meta"):
        tower = kind(CLIPTextConfig(**config))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            tower(torch.zeros(1, config["max_position_embeddings"], dtype=torch.int64))
    return float(counter.get_total_flops()) / 1e12


def published_mfu(rows: int, work: Work, *, gpus: int, gpu_tflops: float, hours: float) -> float:
    """Return the MFU of a training that took so many hours for so many rows."""
    return rows * work.row / (hours * HOUR_S * gpus * gpu_tflops)
