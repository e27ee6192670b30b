"""Schedules as scheduler configs tell of them, against the classes of diffusers that wrote those."""

import inspect
import json

import diffusers
import pytest
import torch

from ssd1b.models.files import NANO
from ssd1b.sampling.counterparts import COUNTERPARTS
from ssd1b.sampling.schedule import LEADING, SDXL, Schedule

SD_15 = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False,
}  # fmt: skip
"""As the pipelines of the SD-1.5 line carry it; it says nothing of spacing and prediction."""


def test_the_nano_pipeline_and_the_sd_15_line_have_sdxls_schedule():
    assert Schedule.read(NANO) == SDXL
    assert Schedule.of(SD_15) == SDXL


def test_a_v_prediction_config_is_read():
    config = {**SD_15, "_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction"}
    config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "steps_offset": 0}
    assert Schedule.of(config) == Schedule(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", steps_offset=0
    )


@pytest.mark.parametrize("name", sorted({*LEADING, *(kind.scheduler for kind in COUNTERPARTS.values())}))
def test_what_a_config_leaves_out_is_what_its_class_takes(name):
    default = inspect.signature(getattr(diffusers, name)).parameters
    made = Schedule.of({"_class_name": name, "beta_start": 0.1, "beta_end": 0.2, "beta_schedule": "linear"})
    if "timestep_spacing" in default:
        assert made.timestep_spacing == default["timestep_spacing"].default
    if "steps_offset" in default:
        assert made.steps_offset == default["steps_offset"].default
    assert made.prediction_type == default["prediction_type"].default
    assert made.num_train_timesteps == default["num_train_timesteps"].default


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "linear"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_alphas_are_diffusers(beta_schedule, zero_snr):
    keys = {"beta_schedule": beta_schedule, "rescale_betas_zero_snr": zero_snr, "prediction_type": "v_prediction"}
    schedule = Schedule(**keys)
    wanted = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, **keys).alphas_cumprod.double()
    torch.testing.assert_close(torch.tensor(schedule.alphas), wanted, rtol=2e-6, atol=1e-7)
    assert bool(schedule.alphas[-1] == 0) == zero_snr


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2' is not supported: choose from"),
        ({"prediction_type": "sample"}, "prediction_type 'sample' is not supported"),
        ({"timestep_spacing": "log"}, "timestep_spacing 'log'"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type 'sigma_min' is not supported.* needs 'zero'"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr needs prediction_type"),
        ({"beta_start": 0.5}, "beta_start 0.5"),
        ({"steps_offset": 7}, "steps_offset 7"),
    ],
)
def test_what_is_not_supported_is_named(wrong, told):
    with pytest.raises(ValueError, match=told):
        Schedule.of({**SD_15, **wrong})


@pytest.mark.parametrize("key", ["beta_start", "beta_end", "beta_schedule"])
def test_what_has_no_common_default_is_asked_for(key):
    with pytest.raises(ValueError, match=f"no {key}"):
        Schedule.of({name: value for name, value in SD_15.items() if name != key})


def test_a_folder_without_a_scheduler(tmp_path):
    with pytest.raises(ValueError, match=r"scheduler_config.json is missing"):
        Schedule.read(tmp_path)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(SD_15))
    assert Schedule.read(tmp_path) == SDXL


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("one_more", [False, True])
def test_every_number_of_steps_visits_so_many_training_steps(spacing, one_more):
    """Also where diffusers' trailing range is one too long (61, 103, ... steps): its last would be step -1."""
    schedule = Schedule(timestep_spacing=spacing)
    for steps in range(1, 501):
        visited = schedule.timesteps(steps, one_more=one_more)
        assert len(visited) == steps
        assert 0 <= visited.min() <= visited.max() <= 999
