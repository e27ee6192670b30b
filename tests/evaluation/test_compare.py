"""A comparison of models, on the shipped nano family: a worse model is told from a good one, and refused."""

import copy
import dataclasses
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from ssd1b.engines.on_torch import TorchEngine
from ssd1b.evaluation import compare, measure
from ssd1b.evaluation.asks import Ask, asks_of
from ssd1b.evaluation.cost import output_errors, sizes, step_times
from ssd1b.evaluation.drawing import Model, draw
from ssd1b.evaluation.gates import decide
from ssd1b.models.files import load_pipeline, load_unet
from ssd1b.pruning.calibration import asks as questions
from ssd1b.pruning.calibration import of_corpus
from ssd1b.recipes.evaluate import RECIPES
from ssd1b.recipes.promote import RECIPES as PROMOTE
from ssd1b.recipes.promote import Thresholds

CONFIG = dataclasses.replace(RECIPES["nano"](), teacher="nano")
FEW = dataclasses.replace(CONFIG, prompts=14, combinations=0, scenes=0, probes=(), steps=7, references=0)
"""What tells a bad model in seconds."""
NEEDED = {"parameters_ratio": 0.5, "step_speedup": 2.0}
"""What a student is in size and speed, whatever it draws."""


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load("nano")


def test_a_model_against_itself_is_the_same_size_and_about_as_fast(model: Model) -> None:
    assert sizes(model, model)["parameters_ratio"] == 1
    times = step_times(model, model, dataclasses.replace(CONFIG, timing_rounds=5, timing_batch=1))
    assert times["step_ms_teacher"] > 0
    assert 0.5 < times["step_speedup"] < 2


def test_noise_estimates_are_compared_on_both_splits(model: Model) -> None:
    few = dataclasses.replace(CONFIG, error_pictures=3)
    expert = load_unet("nano+retro")
    assert output_errors(model.engine.unet, model.engine.unet, few) == {
        "heldout_output_error": 0, "train_output_error": 0,
    }  # fmt: skip
    found = output_errors(model.engine.unet, expert, few)
    assert all(0 < value < 1 for value in found.values())
    assert found == output_errors(model.engine.unet, expert, few), "the same question got two answers"
    assert output_errors(model.engine.unet, expert, dataclasses.replace(few, error_pictures=0)) == {}


def test_a_picture_does_not_depend_on_its_batch_and_is_kept_as_it_was(model: Model, tmp_path: Path) -> None:
    asks = [
        Ask(prompt=prompt, seed=i, novelty="trained")
        for i, prompt in enumerate(["a red apple, 3d render style", "a tiger, flat vector style", "a pear"])
    ]
    few = dataclasses.replace(CONFIG, steps=2)
    together = draw(model, asks, dataclasses.replace(few, batch=3), tmp_path / "together")
    apart = draw(model, asks, dataclasses.replace(few, batch=2), tmp_path / "apart")
    (whole,) = together.batches(3)
    halves = list(apart.batches(2))
    assert whole.shape == (3, 128, 128, 3)
    assert [len(half) for half in halves] == [2, 1]
    assert (whole.int() - torch.cat(halves).int()).abs().max() <= 1
    assert not torch.equal(whole[0], whole[1])


def noisy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Weights with noise of a quarter of their own spread."""
    generator = torch.Generator().manual_seed(0)
    worse = copy.deepcopy(unet)
    with torch.no_grad():
        for weight in worse.parameters():
            weight += 0.25 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    return worse


def collapsed(unet: UNet2DConditionModel, steps: int = 20) -> UNet2DConditionModel:
    """Weights after training on one picture alone, whatever the prompt says."""
    worse = copy.deepcopy(unet).train()
    pipeline = load_pipeline("nano", unet=worse)
    examples = of_corpus(pipeline, 8)
    one_CHW, alphas = examples[0].latent_CHW, pipeline.scheduler.alphas_cumprod
    (asked,) = questions(pipeline, examples, 0)
    optim = torch.optim.AdamW(worse.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        timestep_B = torch.randint(1000, (8,), generator=generator)
        noise_BCHW = torch.randn(8, *one_CHW.shape, generator=generator)
        alpha = alphas[timestep_B][:, None, None, None]
        noised_BCHW = alpha.sqrt() * one_CHW + (1 - alpha).sqrt() * noise_BCHW
        found_BCHW = worse(**{**asked, "sample": noised_BCHW, "timestep": timestep_B})[0]
        optim.zero_grad()
        F.mse_loss(found_BCHW, noise_BCHW).backward()
        optim.step()
    return worse.eval()


@pytest.fixture(scope="module")
def students(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Numbers of three students beside the base teacher, on prompts that it can draw."""
    folder = tmp_path_factory.mktemp("pictures")
    asks = [ask for ask in asks_of(FEW) if ask.novelty == "trained"]
    lookers = compare.lookers_of(FEW)
    teacher = draw(model, asks, FEW, folder / "teacher")
    found = {"equal": measure.numbers(compare.look(lookers, asks, {"teacher": teacher, "student": teacher}, FEW))}
    for name, worsen in (("noisy", noisy), ("collapsed", collapsed)):
        worse = dataclasses.replace(model, engine=TorchEngine(worsen(model.engine.unet)))
        drawn = {"teacher": teacher, "student": draw(worse, asks, FEW, folder / name)}
        found[name] = measure.numbers(compare.look(lookers, asks, drawn, FEW))
    return {name: {**numbers, **NEEDED} for name, numbers in found.items()}


@pytest.mark.parametrize("thresholds", [Thresholds(prompts="all"), PROMOTE["nano"]().thresholds], ids=["real", "nano"])
def test_a_worse_model_is_refused_and_the_refusal_says_by_how_much(
    students: dict[str, dict[str, float]], thresholds: Thresholds
) -> None:
    """Real ones: noise on the weights, and weights that collapsed to one picture. The teacher's own pictures pass."""
    refused = {
        name: {gate.name: gate.message for gate in decide(numbers, thresholds) if not gate.passes}
        for name, numbers in students.items()
    }
    assert refused["equal"] == {}
    for name in ("noisy", "collapsed"):
        assert {"score_kept", "score_kept_low"} <= refused[name].keys(), name
        assert re.match(r"score_kept fails by \d", refused[name]["score_kept"])
        assert "over 14 prompts; more of them would not change it" in refused[name]["score_kept_low"]
    assert "distance_ratio" in refused["collapsed"]
    assert students["collapsed"]["variety_ratio"] < 0.8 < students["noisy"]["variety_ratio"]
