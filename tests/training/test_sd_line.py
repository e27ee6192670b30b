"""The SD-1.5 line through the same loop, with every option of the maths on: velocity, min-SNR, normalised
self-attention features, noise offset, and an average that is the student. A plain loop beside it does the same.
"""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.nn import functional as F

from ssd1b.elastic.randomness import draw
from ssd1b.models.lineage import read
from ssd1b.recipes.distill import Weights
from ssd1b.training import checkpoint
from tests.training.alone import Alone, sd_recipe

GOLDEN = Path(__file__).parents[1] / "golden" / "distill_loss_options.json"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    config = sd_recipe(folder, prediction_type="v_prediction")
    stages = tuple(dataclasses.replace(stage, weights=Weights(snr_gamma=5.0)) for stage in config.stages)
    return Alone(
        folder, config, stages=stages, features="self_attention", normalise=True, noise_offset=0.05, ema_decay=0.9
    )


@pytest.fixture(scope="module")
def finished(alone: Alone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    root = tmp_path_factory.mktemp("finished")
    alone.starts = []
    return root, alone.run(root)


def test_six_steps_give_the_golden_losses(finished: tuple[Path, dict[int, float]]) -> None:
    assert list(finished[1].values()) == pytest.approx(json.loads(GOLDEN.read_text()), rel=2e-3)


def test_a_plain_loop_over_plain_diffusers_has_the_same_losses(
    alone: Alone, finished: tuple[Path, dict[int, float]]
) -> None:
    assert plainly(alone) == pytest.approx(list(finished[1].values()), rel=1e-4)


def plainly(alone: Alone) -> list[float]:
    """Train by the letter of the formulas: torch, diffusers' schedulers and pipelines, and the rows' own draws."""
    base = StableDiffusionPipeline.from_pretrained(alone.config.base, safety_checker=None)
    schedule = DDIMScheduler.from_config(base.scheduler.config)
    teacher, small = base.unet.requires_grad_(False), dict(base.unet.config) | {"layers_per_block": 1}
    student = UNet2DConditionModel.from_config(small)
    whole = teacher.state_dict()
    student.load_state_dict(
        {name: whole[re.sub(r"(up_blocks.\d.\w+).1", r"\1.2", name)] for name in student.state_dict()}
    )
    losses = []
    for steps in (range(4), range(4, 6)):
        adam = torch.optim.AdamW(student.parameters(), lr=2e-4, weight_decay=0.01)
        average = [weight.detach().clone() for weight in student.parameters()]
        for update, step in enumerate(steps):
            batches = [plain_loss(alone, base, schedule, teacher, student, 2 * step + half) for half in (0, 1)]
            loss = torch.stack(batches).mean()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            adam.step()
            losses.append(loss.item())
            decay = min(0.9, (1 + update) / (10 + update))
            for mean, weight in zip(average, student.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * weight.detach())
        for mean, weight in zip(average, student.parameters(), strict=True):
            weight.data.copy_(mean)
    return losses


def plain_loss(
    alone: Alone,
    base: StableDiffusionPipeline,
    schedule: DDIMScheduler,
    teacher: UNet2DConditionModel,
    student: UNet2DConditionModel,
    slot: int,
) -> torch.Tensor:
    """Return the mean loss of the two rows of a slot, one at a time."""
    given, row_losses = alone.rows(slot), []
    for i, sample in enumerate(given["sample_id"]):
        drawn = draw(3, given["epoch"][i], sample, captions=given["captions"][i], shape=(4, 16, 16), drop_share=0.1)
        mean, std = (
            torch.frombuffer(bytearray(given[name][i]), dtype=torch.float16).float() for name in ("mean", "std")
        )
        clean = (mean + std * torch.from_numpy(drawn.posterior_CHW).flatten()).reshape(1, 4, 16, 16)
        noise = torch.from_numpy(drawn.noise_CHW + 0.05 * drawn.offset_C[:, None, None])[None].float()
        timestep = torch.tensor([drawn.timestep])
        tokens = base.tokenizer(drawn.caption or "", padding="max_length", truncation=True, return_tensors="pt")
        text = base.text_encoder(tokens.input_ids)[0].detach()
        outputs, features = [], []
        for unet, index in ((teacher, lambda i: 2 * i), (student, lambda i: i)):
            caught = {}
            places = [f"{part}_blocks.{i}.attentions.{j}.transformer_blocks.0.attn1"
                      for part, i in ATTENTIONS for j in ([0] if part == "down" else [0, index(1)])]  # fmt: skip
            places.append("mid_block.attentions.0.transformer_blocks.0.attn1")
            hooks = [
                unet.get_submodule(place).register_forward_hook(
                    lambda _m, _i, out, n=n, caught=caught: caught.__setitem__(n, out)
                )
                for n, place in enumerate(places)
            ]
            outputs.append(unet(schedule.add_noise(clean, noise, timestep), timestep, text).sample)
            features.append(caught)
            for hook in hooks:
                hook.remove()
        snr = schedule.alphas_cumprod[timestep] / (1 - schedule.alphas_cumprod[timestep])
        weight = min(snr.item(), 5.0) / (snr.item() + 1)
        velocity = schedule.get_velocity(clean, noise, timestep)
        loss = weight * (F.mse_loss(outputs[1], velocity) + 0.5 * F.mse_loss(outputs[1], outputs[0]))
        for n, theirs in features[0].items():
            loss = loss + 0.5 * (features[1][n] - theirs).pow(2).sum() / theirs.pow(2).sum()
        row_losses.append(loss)
    return torch.stack(row_losses).mean()


ATTENTIONS = [(part, i) for part, levels in (("down", (0, 1, 2)), ("up", (1, 2, 3))) for i in levels]


def test_a_run_that_dies_ends_with_the_same_weights_and_averages(
    alone: Alone, finished: tuple[Path, dict[int, float]], tmp_path: Path
) -> None:
    alone.starts = []
    with pytest.raises(RuntimeError, match="the peer is gone"):
        alone.run(tmp_path, stop_before=3)
    losses = alone.run(tmp_path)
    assert [start.first_step for start in alone.starts] == [0, 2]
    assert losses == finished[1]
    ours, theirs = (checkpoint.load(checkpoint.step_folder(root, 6))[0] for root in (tmp_path, finished[0]))
    assert ours.keys() == theirs.keys() == {"student", "moments", "ema"}
    assert all(torch.equal(ours[part][name], theirs[part][name]) for part in ours for name in theirs[part])


def test_every_stage_leaves_its_average_as_a_pipeline_that_plain_diffusers_loads(
    finished: tuple[Path, dict[int, float]],
) -> None:
    root = finished[0]
    pipeline = StableDiffusionPipeline.from_pretrained(root / "stage-more", safety_checker=None)
    held = checkpoint.load(checkpoint.step_folder(root, 6))[0]
    assert all(torch.equal(weight, held["ema"][name]) for name, weight in pipeline.unet.state_dict().items())
    assert all(torch.equal(weight, held["student"][name]) for name, weight in pipeline.unet.state_dict().items())
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    first = UNet2DConditionModel.from_pretrained(root / "stage-layers", subfolder="unet")
    assert first.config.layers_per_block == 1
    story = read(root / "stage-more")
    assert story is not None
    assert [each.stage for each in story.trained] == ["layers", "more"]
