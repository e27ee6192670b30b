"""The loop without a cluster: golden losses, exact resume, clear errors. Weights are random and seeded."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from ssd1b.training import checkpoint
from tests.training.alone import Alone

GOLDEN = Path(__file__).parents[1] / "golden" / "distill_loss.json"


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
