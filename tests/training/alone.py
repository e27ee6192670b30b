"""The loop with one worker and no cluster, on folders of its own: models with random, seeded weights."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from ssd1b.elastic.feed import Attempt, Latents, slots
from ssd1b.family.table import new_unet
from ssd1b.models.files import load_pipeline, save_folder
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.training import checkpoint, journal
from ssd1b.training.loop import Task, Worker, distill
from ssd1b.training.stages import total_steps
from tests.training.synthetic import write_latents, write_model


def write_sd_model(folder: Path, seed: int, **schedule: Any) -> str:
    """Write a nano pipeline of the SD-1.5 line: one tower, and a schedule with these changes. Returns its source."""
    parts = load_pipeline("nano", unet=None)
    torch.manual_seed(seed)
    made = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=new_unet("nano-sd-1.5"),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
            **schedule,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return str(save_folder(made, folder))


def xl_recipe(folder: Path) -> Distillation:
    """Twenty steps in three stages under two teachers, to SSD-1B's blocks."""
    base, other = write_model(folder / "base", seed=1), write_model(folder / "other", seed=2)
    stages = (
        Stage(name="mid", teacher=base, carve=("mid",), steps=6, lr=2e-4, warmup_steps=2),
        Stage(name="down", teacher=other, carve=("down",), steps=6, lr=2e-4, warmup_steps=2),
        Stage(name="up", teacher=base, carve=("up",), steps=8, lr=2e-4, warmup_steps=2),
    )
    return Distillation(
        run="alone",
        base=base,
        latents="-",
        stages=stages,
        registered_name="-",
        global_batch=4,
        slices=2,
        seed=3,
        checkpoint_steps=4,
        log_steps=1,
    )


def sd_recipe(folder: Path, **schedule: Any) -> Distillation:
    """Six steps in two stages of the SD-1.5 line: first SD-Small's layers go, then nothing more."""
    base = write_sd_model(folder / "base", 1, **schedule)
    stages = (
        Stage(name="layers", teacher=base, carve=("down", "up"), steps=4, lr=2e-4, warmup_steps=1),
        Stage(name="more", teacher=base, carve=(), steps=2, lr=2e-4, warmup_steps=1),
    )
    return Distillation(
        run="alone",
        base=base,
        latents="-",
        stages=stages,
        registered_name="-",
        student="sd-small",
        global_batch=4,
        slices=2,
        seed=3,
        checkpoint_steps=2,
        log_steps=1,
        features="blocks",
    )


class Alone:
    """One worker on folders of its own."""

    def __init__(self, folder: Path, config: Distillation | None = None, **changes: Any) -> None:
        self.latents = Latents.open(write_latents(folder / "latents"))
        self.config = dataclasses.replace(config or xl_recipe(folder), **changes)
        self.order = self.latents.order(global_batch=4, slices=2, seed=3)
        self.starts: list[Attempt] = []

    @staticmethod
    def like(other: "Alone", config: Distillation) -> "Alone":
        """Return the same worker on the same rows, with another recipe."""
        made = object.__new__(Alone)
        made.latents, made.order, made.starts, made.config = other.latents, other.order, [], config
        return made

    def run(self, root: Path, *, stop_before: int | None = None) -> dict[int, float]:
        """Train from the newest checkpoint; with stop_before, die before that step. Returns the loss of each step."""
        newest = checkpoint.latest(root)
        first = checkpoint.step_of(newest) if newest else 0
        self.starts = [*self.starts, Attempt(first_step=first, world_size=1, time_s=0.0)]
        worker = Worker(rank=0, device=torch.device("cpu"), starts=self.starts, wrap=lambda model: model)

        def slices() -> Iterator[dict[str, Any]]:
            for step in range(first, total_steps(self.config.stages)):
                if step == stop_before:
                    raise RuntimeError("the peer is gone")
                for slot in range(2):
                    yield slots(self.order, self.latents, np.array([slot + 2 * (step - first)]), first, 1).to_pydict()

        distill(Task(config=self.config, root=root, order=self.order, launched_s=0.0), worker, slices())
        steps = journal.surviving_steps(journal.events(root))
        return {step: steps[step]["metrics"]["loss"] for step in sorted(steps)}

    def rows(self, slot: int = 0) -> dict[str, Any]:
        """Return the rows of a slot, as the loop is dealt them; a step has two."""
        return slots(self.order, self.latents, np.array([slot]), 0, 1).to_pydict()
