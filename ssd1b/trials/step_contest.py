"""Steps of training in turns: ours, plain PyTorch that does the same arithmetic, and the passes that no step can spare.

Ours is the loop itself (stepwise.py), with its journal and its log line at every step, on slices that lie in memory.
"The passes alone" are the teacher's forward pass, the student's forward and backward pass and a step of PyTorch's AdamW
on a batch that is ready: no rows are read, no noise drawn, no text encoded, no features compared, no gradient clipped.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssd1b.command import show
from ssd1b.corpus.contest import Contender, Turn, take_turns, timed
from ssd1b.elastic.feed import slots
from ssd1b.elastic.rows import Latents
from ssd1b.elastic.slices import Order
from ssd1b.family.carve import carve, keep_map
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.recipes.distill import Distillation
from ssd1b.training import journal
from ssd1b.training.loop import Rows, Task
from ssd1b.trials.plain_loop import Models, Settings, bare_passes, plain_loop, prepare
from ssd1b.trials.stepwise import Stepwise

OURS, PLAIN, BARE = "ours", "plain PyTorch, the same arithmetic", "the passes alone"


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How much alike ours and plain PyTorch trained the same student on the same rows."""

    steps: int
    loss: float
    """Largest difference of a step's loss, as a share of it."""
    weights: float
    """Norm of the difference between the two students, as a share of how far training moved them."""


class Rivals:
    """The contenders of one recipe of one stage, over rows that lie in memory."""

    def __init__(self, config: Distillation, latents: Latents, root: Path) -> None:
        self.config = config
        self.order: Order = latents.order(global_batch=config.global_batch, slices=config.slices or 1, seed=config.seed)
        self.latents = latents
        self.dealt: dict[int, list[Rows]] = {}
        self.root = root
        self.plain_models = models_of(config)
        self.plain = plain_loop(self.plain_models, map(self.rows, range(config.stages[0].steps)), settings_of(config))
        task = Task(config=config, root=root, order=self.order, launched_s=0.0)
        self.ours = Stepwise(task, self.rows)

    def rows(self, step: int) -> Sequence[Rows]:
        """Return the slices of a step; they are read once."""
        if step not in self.dealt:
            first = step * self.order.slices
            tables = [
                slots(self.order, self.latents, np.array([slot]), 0, 1)
                for slot in range(first, first + self.order.slices)
            ]
            self.dealt[step] = [table.to_pydict() for table in tables]
        return self.dealt[step]

    def likeness(self, steps: int) -> Likeness:
        """Let ours, which must have been entered, and plain PyTorch take the first steps; compare what they learned."""
        begun = {name: weight.clone() for name, weight in self.plain_models.student.state_dict().items()}
        losses = []
        for _ in range(steps):
            self.ours.step()
            losses.append(next(self.plain))
        told = [event["metrics"]["loss"] for event in journal.events(self.root) if event["kind"] == "step"]
        assert len(told) == steps, "the recipe must log every step"
        ours, theirs = self.ours.student.state_dict(), self.plain_models.student.state_dict()
        apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in begun)
        moved = sum(float((theirs[name] - begun[name]).square().sum()) for name in begun)
        return Likeness(
            steps=steps,
            loss=max(abs(own - other) / other for own, other in zip(told, losses, strict=True)),
            weights=(apart / moved) ** 0.5,
        )

    def contenders(self) -> dict[str, Contender]:
        """Return them by name; a turn is a step."""
        models = models_of(self.config)
        batch = [prepare(models, rows, settings_of(self.config)) for rows in self.rows(0)]
        stage = self.config.stages[0]
        optimizer = torch.optim.AdamW(
            models.student.parameters(), lr=stage.lr, weight_decay=self.config.weight_decay, fused=True
        )

        def passes() -> None:
            for inputs, noise_BCHW in batch:
                bare_passes(models.teacher, models.student, inputs, noise_BCHW)
            optimizer.step()
            optimizer.zero_grad()

        return {
            OURS: self.turn(self.ours.step),
            PLAIN: self.turn(lambda: next(self.plain)),
            BARE: self.turn(passes),
        }

    def turn(self, step: Callable[[], object]) -> Contender:
        def work() -> tuple[int, int]:
            step()
            return self.config.global_batch, 0

        return lambda _round: timed(work)


def models_of(config: Distillation) -> Models:
    """Return a recipe's models for the plain loop: the student is carved of the base at once."""
    base, pipeline = load_unet(config.base), load_pipeline(config.base, unet=None, vae=None)
    return Models(
        teacher=load_unet(config.stages[0].teacher).requires_grad_(False),
        student=carve(base, keep_map(base.config, config.student)),
        tokenizers=(pipeline.tokenizer, pipeline.tokenizer_2),
        towers=(pipeline.text_encoder, pipeline.text_encoder_2),
        alphas_cumprod=pipeline.scheduler.alphas_cumprod.float(),
    )


def settings_of(config: Distillation) -> Settings:
    stage = config.stages[0]
    return Settings(
        seed=config.seed,
        lr=stage.lr,
        drop_share=config.drop_share,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        output_weight=stage.weights.output,
        feature_weight=stage.weights.feature,
    )


def contest(config: Distillation, latents: Latents, root: Path, *, steps: int, rounds: int) -> dict[str, Any]:
    """Compare and time the contenders; print the table and return it.

    Times are medians over the rounds, ratios medians of the ratios of one round. Everything runs on one thread of this
    process; wall time counts, and the processor time of the same turns is kept beside it.
    """
    torch.set_num_threads(1)
    rivals = Rivals(config, latents, root)
    with rivals.ours:
        alike = rivals.likeness(steps)
        turns = take_turns(rivals.contenders(), rounds)
    show(f"after {steps} steps ours and plain PyTorch differ by {alike.loss:.1e} of the loss, and their weights by "
         f"{alike.weights:.1e} of the way they have gone")  # fmt: skip
    return {"alike": alike, "turns": standing(turns)}


def standing(turns: Mapping[str, Sequence[Turn]]) -> dict[str, dict[str, float]]:
    """Print and return ms a step, and how many times as long ours takes as each; the same in processor time."""
    show(f"{'':40s}{'ms/step':>10s}{'ours takes':>12s}{'cpu ms':>10s}{'ours takes':>12s}")
    table = {}
    for name, taken in turns.items():
        row: dict[str, float] = {}
        for kind in ("wall", "cpu"):
            own, theirs = ([getattr(turn, f"{kind}_s") for turn in each] for each in (turns[OURS], taken))
            row[f"{kind}_ms"] = round(1000 * statistics.median(theirs), 1)
            row[f"{kind}_ratio"] = round(statistics.median(a / b for a, b in zip(own, theirs, strict=True)), 3)
        table[name] = row
        show(f"{name:40s}{row['wall_ms']:10.1f}{row['wall_ratio']:12.3f}{row['cpu_ms']:10.1f}{row['cpu_ratio']:12.3f}")
    return table
