"""The loop without a cluster: golden losses, exact resume, clear errors. Weights are random and seeded."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from ssd1b.elastic.feed import Attempt, Latents, slots
from ssd1b.recipes.distill import Distillation, Stage
from ssd1b.training import checkpoint, journal
from ssd1b.training.loop import Task, Worker, distill
from ssd1b.training.stages import total_steps
from tests.training.synthetic import write_latents, write_model

GOLDEN = Path(__file__).parents[1] / "golden" / "distill_loss.json"


class Alone:
    """One worker on folders of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.latents = Latents.open(write_latents(folder / "latents"))
        base, other = write_model(folder / "base", seed=1), write_model(folder / "other", seed=2)
        stages = (
            Stage(name="mid", teacher=base, carve=("mid",), steps=6, lr=2e-4, warmup_steps=2),
            Stage(name="down", teacher=other, carve=("down",), steps=6, lr=2e-4, warmup_steps=2),
            Stage(name="up", teacher=base, carve=("up",), steps=8, lr=2e-4, warmup_steps=2),
        )
        config = Distillation(
            run="alone", base=base, latents="-", stages=stages, registered_name="-", global_batch=4, slices=2,
            seed=3, checkpoint_steps=4, log_steps=1,
        )  # fmt: skip
        self.config = dataclasses.replace(config, **changes)
        self.order = self.latents.order(global_batch=4, slices=2, seed=3)
        self.starts: list[Attempt] = []

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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def finished(alone: Alone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    root = tmp_path_factory.mktemp("finished")
    alone.starts = []
    return root, alone.run(root)


@pytest.mark.timeout(600)
def test_twenty_steps_give_the_golden_losses(finished: tuple[Path, dict[int, float]]) -> None:
    losses = list(finished[1].values())
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=2e-3)
    assert losses[-1] < losses[12], "the last stage learns"


@pytest.mark.timeout(600)
def test_a_run_that_dies_twice_ends_with_the_same_weights(
    alone: Alone, finished: tuple[Path, dict[int, float]], tmp_path: Path
) -> None:
    alone.starts = []
    for dies_before in (7, 12):  # in the middle of a stage; right after a stage's result
        with pytest.raises(RuntimeError, match="the peer is gone"):
            alone.run(tmp_path, stop_before=dies_before)
    assert [start.first_step for start in alone.starts] == [0, 6]
    losses = alone.run(tmp_path)
    assert alone.starts[-1].first_step == 12
    assert losses == finished[1]
    ours, theirs = (checkpoint.load(checkpoint.step_folder(root, 20))[0] for root in (tmp_path, finished[0]))
    assert all(torch.equal(ours["student"][name], theirs["student"][name]) for name in theirs["student"])


@pytest.mark.timeout(600)
def test_every_stage_leaves_a_pipeline_that_plain_diffusers_loads(finished: tuple[Path, dict[int, float]]) -> None:
    root = finished[0]
    depth = {}
    for stage in ("mid", "down", "up"):
        unet = UNet2DConditionModel.from_pretrained(root / f"stage-{stage}", subfolder="unet")
        depth[stage] = sum(type(module).__name__ == "BasicTransformerBlock" for module in unet.modules())
    assert depth == {"mid": 60, "down": 48, "up": 34}
    pipeline = StableDiffusionXLPipeline.from_pretrained(root / "stage-up", add_watermarker=False)
    last = checkpoint.load(checkpoint.step_folder(root, 20))[0]["student"]
    assert all(torch.equal(weight, last[name]) for name, weight in pipeline.unet.state_dict().items())


@pytest.mark.timeout(600)
def test_a_gradient_that_is_not_finite_ends_the_run_with_advice(tmp_path: Path) -> None:
    hurt = Alone(tmp_path)
    unet = Path(hurt.config.base) / "unet"
    broken = UNet2DConditionModel.from_pretrained(unet)
    with torch.no_grad():
        broken.conv_in.weight[0, 0, 0, 0] = float("inf")
    broken.save_pretrained(unet)
    with pytest.raises(ValueError, match="not finite in stage 'mid': lower its lr"):
        hurt.run(tmp_path / "run")
