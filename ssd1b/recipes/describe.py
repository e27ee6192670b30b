"""Which members of the family to describe."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Describe:
    """One run of jobs.describe."""

    members: tuple[str, ...]
    """Names in ssd1b.family.table."""


FULL = ("sdxl", "ssd-1b", "segmind-vega", "sd-1.5", "sd-small", "sd-tiny")
NANO = tuple(f"nano-{name}" for name in FULL)


def everything() -> Describe:
    """The whole family; choose with --set members='["sdxl", "ssd-1b"]'."""
    return Describe(members=(*FULL, *NANO))


def nano() -> Describe:
    """The nano twins."""
    return Describe(members=NANO)


RECIPES: dict[str, Callable[[], Describe]] = {"all": everything, "nano": nano}
