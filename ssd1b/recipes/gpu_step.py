"""Recipes of ssd1b.trials.gpu_step: which teacher, which student, at what size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class GpuStep:
    """Training steps of a student with random weights under a teacher with random weights, on one device."""

    teacher: str = "sdxl"
    """A member of the family that has students (ssd1b.family.table)."""
    student: str = "ssd-1b"
    size: str = "1024x1024"
    """Picture size, WIDTHxHEIGHT."""
    most_rows: int = 64
    """Micro-batches of 1, 2, 4, ... rows up to this many, or until one does not fit."""
    rows_per_step: int = 8
    """Of an optimizer step: smaller micro-batches are accumulated. 8 is what each of four GPUs has of 32."""
    steps: int = 8
    """Timed steps of each micro-batch."""
    warm_up: int = 2
    """Steps before them: the optimizer's state is made, kernels are chosen."""
    precision: Literal["fp32", "bf16"] = "bf16"
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    activation_checkpointing: bool = False
    compiled: bool = False
    scratch: str = ""
    """Where the random weights are written, 7 GB at full size; "" is the system's temporary folder."""
    seed: int = 0


def full() -> GpuStep:
    """SDXL to SSD-1B at 1024 pixels: asks for 16 GiB of memory and a GPU of 40 GB or more."""
    return GpuStep()


def small() -> GpuStep:
    """The same at nano width, on any machine."""
    return GpuStep(teacher="nano-sdxl", size="128x128", most_rows=2, rows_per_step=2, steps=2, warm_up=1)


RECIPES: dict[str, Callable[[], GpuStep]] = {"full": full, "small": small}
