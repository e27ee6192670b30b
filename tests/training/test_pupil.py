"""A stage's student and its teacher: terms against plain diffusers, averages, and what a step does not wait for."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn import functional as F

from ssd1b.recipes.distill import Distillation, Weights
from ssd1b.training import pupil, switches
from ssd1b.training.conditioning import Batch, Conditioning
from ssd1b.training.losses import over_batch, total
from ssd1b.training.pupil import Pupil
from tests.training.alone import Alone, sd_recipe, write_sd_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    return Alone(folder, sd_recipe(folder))


@pytest.fixture(scope="module")
def velocity(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_sd_model(tmp_path_factory.mktemp("velocity") / "model", 2, prediction_type="v_prediction")


def recipe(alone: Alone, *, weights: Weights | None = None, teacher: str | None = None, **changes: Any) -> Distillation:
    """Return the recipe with these changes; weights and teacher are those of all its stages."""
    stages = tuple(
        dataclasses.replace(stage, weights=weights or stage.weights, teacher=teacher or stage.teacher)
        for stage in alone.config.stages
    )
    return dataclasses.replace(alone.config, stages=stages, **changes)


def begin(alone: Alone, **changes: Any) -> tuple[Pupil, Batch, torch.Tensor]:
    """Return a pupil before its first step, a batch, and the noise schedule."""
    config = recipe(alone, **changes)
    conditioning = Conditioning(config.base, CPU)
    batch = conditioning.batch(alone.rows(), seed=config.seed)
    return pupil.start(config, Path("nowhere"), 0, CPU), batch, conditioning.alphas_cumprod


def loss_of(student: Pupil, batch: Batch, alphas: torch.Tensor) -> torch.Tensor:
    errors_B = student.errors(batch, alphas)
    return over_batch(total(errors_B, student.stage.weights), batch.real_B, len(batch.real_B))


def hidden(unet: UNet2DConditionModel, batch: Batch, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output of a UNet and of one of its modules, by plain diffusers and a hook of the test's own."""
    caught = []
    module = dict(unet.named_modules())[place]
    handle = module.register_forward_hook(lambda _m, _i, out: caught.append(out if torch.is_tensor(out) else out[0]))
    with torch.no_grad():
        out = unet(batch.noisy_BCHW, batch.timestep_B, batch.text_BTD).sample
    handle.remove()
    return out, caught[0]


@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_is_what_plain_diffusers_and_arithmetic_give(alone: Alone, normalise: bool) -> None:
    weights = Weights(task=1.0, output=0.3, feature=0.7, snr_gamma=5.0)
    student, batch, alphas = begin(alone, weights=weights, normalise=normalise)
    place = "down_blocks.1"
    (ours, f_ours), (theirs, f_theirs) = (hidden(unet, batch, place) for unet in (student.student, student.teacher))
    with torch.no_grad():
        parts_B = student.errors(batch, alphas)
    snr_B = alphas[batch.timestep_B] / (1 - alphas[batch.timestep_B])
    for i in range(len(batch.real_B)):
        weight = float(min(snr_B[i], torch.tensor(5.0)) / snr_B[i])
        assert parts_B["task"][i].item() == pytest.approx(
            weight * F.mse_loss(ours[i], batch.noise_BCHW[i]).item(), rel=1e-4
        )
        assert parts_B["output"][i].item() == pytest.approx(weight * F.mse_loss(ours[i], theirs[i]).item(), rel=1e-4)
        feature = F.mse_loss(f_ours[i], f_theirs[i]) / (f_theirs[i].pow(2).mean() if normalise else 1)
        assert parts_B[f"feature/{place}"][i].item() == pytest.approx(feature.item(), rel=1e-4)
    summed = sum(part for name, part in parts_B.items() if name.startswith("feature/"))
    expected_B = parts_B["task"] + 0.3 * parts_B["output"] + 0.7 * summed
    assert torch.allclose(total(parts_B, weights), expected_B, rtol=1e-5)


@pytest.mark.parametrize(("base_is", "teacher_is"), [("noise", "velocity"), ("velocity", "noise")])
def test_a_teacher_of_another_kind_is_compared_as_the_students_kind(
    alone: Alone, velocity: str, base_is: str, teacher_is: str
) -> None:
    sources = {"noise": alone.config.base, "velocity": velocity}
    student, batch, alphas = begin(alone, base=sources[base_is], teacher=sources[teacher_is])
    kind = {"noise": "epsilon", "velocity": "v_prediction"}
    with torch.no_grad():
        ours, theirs = (
            unet(batch.noisy_BCHW, batch.timestep_B, batch.text_BTD).sample
            for unet in (student.student, student.teacher)
        )
        parts_B = student.errors(batch, alphas)
    for i, timestep in enumerate(batch.timestep_B.tolist()):
        pictures = []
        for predicted, of in ((ours, base_is), (theirs, teacher_is)):
            scheduler = DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                prediction_type=kind[of],
            )  # fmt: skip
            scheduler.set_timesteps(1000)
            pictures.append(scheduler.step(predicted[i], timestep, batch.noisy_BCHW[i]).pred_original_sample)
        snr = alphas[timestep] / (1 - alphas[timestep])
        of_picture = snr if base_is == "noise" else snr + 1
        assert parts_B["output"][i].item() == pytest.approx((of_picture * F.mse_loss(*pictures)).item(), rel=1e-2)


def test_a_teacher_that_nothing_is_asked_of_is_not_called(alone: Alone) -> None:
    for weights, calls in ((Weights(output=0.0, feature=0.0), 0), (Weights(feature=0.0), 1), (Weights(output=0.0), 1)):
        student, batch, alphas = begin(alone, weights=weights)
        called: list[int] = []
        student.teacher.register_forward_pre_hook(lambda *_, called=called: called.append(1))
        terms = set(student.errors(batch, alphas))
        assert len(called) == calls
        assert any(name.startswith("feature/") for name in terms) == bool(weights.feature)
        assert ("output" in terms) == bool(calls)


def gradients(student: Pupil, batch: Batch, alphas: torch.Tensor) -> list[torch.Tensor]:
    """Return the loss and all gradients of one pass."""
    loss = loss_of(student, batch, alphas)
    loss.backward()
    return [loss.detach(), *(weight.grad for weight in student.student.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("switch", ["activation_checkpointing", "compiled"])
def test_switches_change_no_gradient(alone: Alone, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is asked to trace and to run what it traced; what it makes of it is its own tests' matter."""
    monkeypatch.setattr(switches, "COMPILER", "eager")
    tiny = {"student": "sd-tiny", "features": "self_attention"}
    stages = (dataclasses.replace(alone.config.stages[0], carve=("mid", "down", "up")),)
    config = dataclasses.replace(alone.config, stages=stages)
    without, batch, alphas = begin(Alone.like(alone, config), **tiny)
    switched = begin(Alone.like(alone, config), **tiny, **{switch: True})[0]
    assert switched.student.is_gradient_checkpointing == (switch == "activation_checkpointing")
    assert (switched.student._compiled_call_impl is not None) == (switch == "compiled")
    ours, theirs = gradients(switched, batch, alphas), gradients(without, batch, alphas)
    assert len(ours) == len(theirs) > 100
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_half_precision_is_of_the_passes_alone(alone: Alone) -> None:
    student, batch, alphas = begin(alone, precision="bf16")
    assert next(student.teacher.parameters()).dtype == torch.bfloat16
    assert {weight.dtype for weight in student.parameters.values()} == {torch.float32}
    parts_B = student.errors(batch, alphas)
    assert {part.dtype for part in parts_B.values()} == {torch.float32}
    exact = begin(alone)[0].errors(batch, alphas)
    for name in ("task", "output"):
        assert torch.allclose(parts_B[name], exact[name], rtol=0.05)
        assert not torch.equal(parts_B[name], exact[name])


def test_a_student_from_scratch_is_random_and_the_same_on_every_worker(alone: Alone) -> None:
    ours, again, carved = (begin(alone, from_scratch=scratch)[0].student for scratch in (True, True, False))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))
    assert not torch.equal(ours.conv_in.weight, carved.conv_in.weight)
    assert ours.state_dict().keys() == carved.state_dict().keys()
    other = begin(alone, from_scratch=True, seed=4)[0].student
    assert not torch.equal(ours.conv_in.weight, other.conv_in.weight)


def test_a_bad_gradient_is_found_when_it_is_looked_for_and_never_saved(alone: Alone, tmp_path: Path) -> None:
    student, batch, alphas = begin(alone)
    loss_of(student, batch, alphas).backward()
    assert student.update(1e-4).isfinite()
    student.check()
    loss_of(student, batch, alphas).backward()
    student.parameters["conv_in.weight"].grad[0, 0, 0, 0] = float("nan")
    assert not student.update(2e-4).isfinite(), "the step itself does not wait to know"
    for _ in range(2):  # it stays so
        with pytest.raises(ValueError, match=r"not finite in stage 'layers': lower its lr \(now 0.0002\)"):
            student.save(tmp_path, 2, {})
    assert not list(tmp_path.iterdir())


def trained(student: Pupil, batch: Batch, alphas: torch.Tensor, steps: int) -> list[torch.Tensor]:
    """Take steps; returns the weights of conv_in after each optimizer step, before an average takes their place."""
    seen = []
    handle = student.optimizer.register_step_post_hook(
        lambda *_: seen.append(student.student.conv_in.weight.detach().clone())
    )
    for _ in range(steps):
        loss_of(student, batch, alphas).backward()
        student.update(1e-3)
    handle.remove()
    return seen


def test_the_result_of_a_stage_is_the_average_of_its_weights(alone: Alone) -> None:
    student, batch, alphas = begin(alone, ema_decay=0.5)
    expected = student.student.conv_in.weight.detach().clone()
    for update, weight in enumerate(trained(student, batch, alphas, 3)):
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weight
    last = student.student.conv_in.weight.detach().clone()
    assert not torch.allclose(last, expected), "while a stage lasts, the student trains on its own weights"
    with student.averaged():
        assert torch.allclose(student.student.conv_in.weight, expected, atol=1e-6)
    assert torch.equal(student.student.conv_in.weight, last)
    [weight] = trained(student, batch, alphas, 1)
    decay = min(0.5, 4 / 13)
    expected = decay * expected + (1 - decay) * weight
    assert torch.allclose(student.student.conv_in.weight, expected, atol=1e-6), "the stage has four steps"
    assert torch.equal(student.following().student.conv_in.weight, student.student.conv_in.weight)


def test_a_restored_pupil_goes_on_as_if_nothing_had_happened(alone: Alone, tmp_path: Path) -> None:
    config = recipe(alone, ema_decay=0.9)
    student, batch, alphas = begin(alone, ema_decay=0.9)
    trained(student, batch, alphas, 2)
    student.save(tmp_path, 2, {})
    again = pupil.start(config, tmp_path, 2, CPU)
    for one in (student, again):
        trained(one, batch, alphas, 1)
    ours, theirs = student.tensors(), again.tensors()
    assert ours.keys() == theirs.keys() == {"student", "moments", "ema"}
    assert all(torch.equal(ours[part][name], theirs[part][name]) for part in ours for name in ours[part])
    assert again.updates == student.updates == 3
