"""Recipes of jobs.lora: which style, on which model, how long."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lora:
    """One adapter for one style."""

    name: str = "black-line"
    """Registered as BASE-lora-NAME; callers of the endpoint ask for NAME."""
    style: str = "black line"
    """Rows of the latents with this style are the training set."""
    base: str = "ssd1b-nano"
    """The registered model that the adapter belongs to."""
    model: str = "models:/ssd1b-nano@candidate"
    """What it is trained on: a registry uri, "nano", or a folder in diffusers layout."""
    latents: str = "nano_line"
    """Name of the latents that jobs.encode made."""
    rank: int = 2
    alpha: float = 4.0
    """The low-rank path is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("to_v", "to_out.0")
    """Layers by the end of their path: what attention writes carries a style better than where it looks."""
    steps: int = 220
    batch: int = 16
    lr: float = 4e-3
    """Peak learning rate; it warms up over a twentieth of the steps and falls to zero along a cosine."""
    unprompted: float = 0.1
    """Share of rows that train without prompt, so that guidance works with the adapter."""
    seed: int = 0
    report_every: int = 25
    """Steps between two reports of the loss."""
    prompts: tuple[str, ...] = (
        "a tiger face, black line style",
        "a red apple, black line style",
        "a carrot, black line style",
        "a doughnut, black line style",
    )
    """Pictures drawn before and after."""
    sampling_steps: int = 20


def nano() -> Lora:
    """The style that neither the nano teachers nor the student have seen."""
    return Lora()


RECIPES: dict[str, Callable[[], Lora]] = {"nano": nano}
