"""Recipes of ssd1b.trials.gpu_engine: which models, at which size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class GpuEngine:
    """Denoising steps at real size with random weights, on one device."""

    teacher: str = "sdxl"
    student: str = "ssd-1b"
    """Members of the family."""
    size: str = "1024x1024"
    batches: tuple[int, ...] = (1, 4, 8, 16)
    """Pictures of a step; each is two rows of the UNet's, for guidance."""
    steps: int = 10
    """Timed steps of a turn."""
    turns: int = 3
    """Of each contender; the median counts."""
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    compiled: bool = True
    """Measure the compiled engine too."""
    ranks: tuple[int, ...] = (8, 32, 128)
    bank_pictures: int = 8
    image_steps: tuple[int, ...] = (4, 30)
    seed: int = 0


def full() -> GpuEngine:
    """SDXL and SSD-1B at 1024 pixels: asks for 16 GiB of memory and a GPU of 40 GB or more."""
    return GpuEngine()


def small() -> GpuEngine:
    """The same at nano width, on any machine."""
    return GpuEngine(
        teacher="nano-sdxl", student="nano-ssd-1b", size="128x128", batches=(1, 2), steps=2, turns=1, dtype="fp32",
        compiled=False, ranks=(4,), bank_pictures=2,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], GpuEngine]] = {"full": full, "small": small}
