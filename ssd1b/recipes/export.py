"""Recipes of jobs.export: which model becomes which engine bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Export:
    """One model to one bundle."""

    name: str = "ssd1b-nano"
    """The registered model; its bundles are registered as NAME-bundle."""
    model: str = "models:/ssd1b-nano@candidate"
    """What is exported: a registry uri, "nano", or a folder in diffusers layout."""
    teacher: str = "nano"
    """Whose step time is measured beside the student's: "nano" or a folder."""
    backend: str = "auto"
    """The engine that is checked and timed: auto, openvino, onnxruntime or torch."""
    slots: int = 9
    """Slots of the LoRA bank, the empty slot 0 included."""
    rank: int = 8
    """The greatest adapter rank that a slot holds."""
    precision: Literal["f32", "f16"] = "f32"
    """Of the graphs' weights. f16 is for GPUs: TensorRT runs what the graph says."""
    convolutions: bool = False
    """Adapters may change the UNet's convolutions too, which costs a little where none does."""
    tensorrt: tuple[str, ...] = ()
    """GPU architectures whose TensorRT plans go into the bundle: ["sm80"] is an A100, built without one by
    TensorRT-RTX. Where a server's GPU has none, its cluster builds them once."""
    check_steps: int = 8
    """Denoising steps of the picture that is compared with torch's."""
    batch: int = 4
    """Rows per call when steps are timed."""
    repeats: int = 9
    """Timed calls per engine; the median counts."""


def nano() -> Export:
    """The student that jobs.distill registered."""
    return Export()


RECIPES: dict[str, Callable[[], Export]] = {"nano": nano}
