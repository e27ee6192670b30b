"""Recipes of jobs.benchmark: which teacher and student, at which batch sizes."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Teacher against student on every engine of this machine, in one run."""

    teacher: str = "nano"
    """A registry uri, "nano", or a folder in diffusers layout."""
    student: str = "models:/ssd1b-nano@candidate"
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Rows per UNet call."""
    repeats: int = 11
    """Timed UNet calls per engine and batch; the median counts."""
    image_steps: int = 25
    """Denoising steps of the end-to-end picture, with guidance, so two UNet rows a step."""
    image_repeats: int = 3
    name: str = "ssd1b-nano"
    """Name of the student's bundle; with jobs.export's name, slots and rank its bundle is reused."""
    slots: int = 9
    """Slots of the LoRA bank."""
    rank: int = 8


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """A teacher of real size with random weights, carved, saved, read again, and both called."""

    teacher: str = "sdxl"
    """A member of the family (ssd1b.family.table)."""
    student: str = "ssd-1b"
    size: str = "512x512"
    """Picture size of the calls, WIDTHxHEIGHT."""
    repeats: int = 3
    """Timed calls of each; the median counts."""
    seed: int = 0


def nano() -> Benchmark:
    """The nano teacher against the registered student."""
    return Benchmark()


def smoke() -> Benchmark:
    """One small measurement, to see that everything runs."""
    return Benchmark(batches=(1, 2), repeats=3, image_steps=4, image_repeats=1)


def full_size() -> FullSize:
    """SDXL to SSD-1B in bfloat16: about 11 GiB of memory."""
    return FullSize()


RECIPES: dict[str, Callable[[], Benchmark | FullSize]] = {"nano": nano, "smoke": smoke, "full_size": full_size}
