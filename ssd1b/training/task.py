"""What every worker of a run is told. Apart from the loop, so that who only hands it on need not import torch."""

from dataclasses import dataclass
from pathlib import Path

from ssd1b.elastic.slices import Order
from ssd1b.recipes.distill import Distillation


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every worker of a run is told."""

    config: Distillation
    root: Path
    order: Order
    launched_s: float
    """When the job was started, seconds since 1970."""
