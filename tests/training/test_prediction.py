"""What a UNet predicts: against diffusers' schedulers, and which teachers can be asked."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.training.prediction import Kind, check_teacher, converted, kind_of, noised, target
from tests.training.alone import write_sd_model

# B rows, C channels, H height, W width

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def latents(count: int, rows: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 4, 3, 2, generator=generator) for _ in range(count)]


def test_noisy_latents_and_targets_are_those_of_diffusers() -> None:
    scheduler = DDIMScheduler(**BETAS)
    clean, noise = latents(2)
    timestep_B = torch.tensor([0, 1, 500, 998, 999])
    a_B = scheduler.alphas_cumprod[timestep_B]
    assert torch.allclose(noised(clean, noise, a_B), scheduler.add_noise(clean, noise, timestep_B), atol=1e-6)
    assert torch.allclose(
        target("v_prediction", clean, noise, a_B), scheduler.get_velocity(clean, noise, timestep_B), atol=1e-6
    )
    assert target("epsilon", clean, noise, a_B) is noise


@pytest.mark.parametrize("timestep", [1, 300, 700, 999])
@pytest.mark.parametrize(("said", "wanted"), [("epsilon", "v_prediction"), ("v_prediction", "epsilon")])
def test_a_converted_prediction_shows_the_same_picture_to_diffusers(said: Kind, wanted: Kind, timestep: int) -> None:
    predicted, noisy = latents(2)
    a_B = DDIMScheduler(**BETAS).alphas_cumprod[torch.full((5,), timestep)]
    pictures = []
    for kind, prediction in (
        (said, predicted),
        (wanted, converted(predicted, noisy, a_B, said=said, wanted=wanted)),
    ):
        scheduler = DDIMScheduler(**BETAS, prediction_type=kind, clip_sample=False)
        scheduler.set_timesteps(1000)
        pictures.append(scheduler.step(prediction, timestep, noisy).pred_original_sample)
    assert torch.allclose(*pictures, rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 99), low=st.floats(1e-3, 0.999))
def test_there_and_back_is_where_it_began(seed: int, low: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, noisy = (torch.randn(2, 4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    a_B = torch.tensor([low, 0.5], dtype=torch.float64)
    there = converted(predicted, noisy, a_B, said="epsilon", wanted="v_prediction")
    back = converted(there, noisy, a_B, said="v_prediction", wanted="epsilon")
    assert torch.allclose(back.double(), predicted, atol=1e-5)
    assert converted(predicted, noisy, a_B, said="epsilon", wanted="epsilon") is predicted


def test_velocity_can_be_asked_for_noise_where_there_is_no_picture() -> None:
    predicted, noisy = latents(2, rows=1)
    assert torch.equal(converted(predicted, noisy, torch.zeros(1), said="v_prediction", wanted="epsilon"), noisy)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_sd_model(tmp_path_factory.mktemp("models") / "base", 1))


def scheduled(root: Path, **config: object) -> str:
    """Write a source that has a UNet's config and a scheduler's: enough to be asked for its schedule."""
    for part, content in (
        ("scheduler", {"_class_name": "DDIMScheduler", **BETAS, **config}),
        ("unet", {"_class_name": "UNet2DConditionModel"}),
    ):
        (root / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (root / part / name).write_text(json.dumps(content))
    return str(root)


def test_a_teacher_may_predict_what_the_base_does_not(base: Path, tmp_path: Path) -> None:
    other = scheduled(tmp_path / "v", prediction_type="v_prediction")
    assert check_teacher(other, str(base)) == "v_prediction"
    assert check_teacher(str(base), other) == "epsilon"
    assert check_teacher("nano+retro", "nano") == "epsilon"


def test_a_teacher_that_says_nothing_is_as_the_base(tmp_path: Path) -> None:
    base = scheduled(tmp_path / "v", prediction_type="v_prediction")
    silent = tmp_path / "silent" / "unet"
    silent.mkdir(parents=True)
    assert check_teacher(str(silent.parent), base) == "v_prediction"


@pytest.mark.parametrize(
    ("teacher", "base", "message"),
    [
        ({"beta_end": 0.02}, {}, "another noise schedule .* beta_end 0.02 where the base has 0.012"),
        ({"rescale_betas_zero_snr": True}, {}, "rescale_betas_zero_snr True where the base has None"),
        ({"prediction_type": "sample"}, {}, "predicts 'sample': .* models that predict epsilon or v_prediction"),
        (
            {"rescale_betas_zero_snr": True},
            {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
            "a schedule that ends in noise alone: .* give a teacher that predicts velocity",
        ),
    ],
)
def test_teachers_that_cannot_be_asked_are_refused(
    teacher: dict[str, object], base: dict[str, object], message: str, tmp_path: Path
) -> None:
    sources = scheduled(tmp_path / "teacher", **teacher), scheduled(tmp_path / "base", **base)
    with pytest.raises(ValueError, match=message):
        check_teacher(*sources)


def test_the_kind_is_noise_where_a_config_does_not_say() -> None:
    assert kind_of({}, "x") == "epsilon"
