"""Sampler tables against diffusers' schedulers, step for step, with a stand-in for the UNet."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from ssd1b.sampling.tables import COLUMNS, SAMPLERS, table

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
DDIM_AS_SDXL = {"clip_sample": False, "set_alpha_to_one": False}
REFERENCES = {
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "ddim": (DDIMScheduler, DDIM_AS_SDXL),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}


def stand_in(model_input, timestep):
    """Predict noise: any smooth function of both arguments shows a wrong coefficient."""
    return torch.tanh(model_input) * (0.5 + timestep / 2000) + 0.1 * torch.sin(timestep / 100)


@pytest.mark.parametrize("steps", [1, 2, 4, 20, 30, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_table_equals_diffusers(sampler, steps):
    kind, extra = REFERENCES[sampler]
    scheduler = kind(**SCHEDULE, **extra)
    scheduler.set_timesteps(steps)
    made = table(sampler, steps)
    unit = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    theirs = unit * scheduler.init_noise_sigma
    theirs_random = torch.Generator().manual_seed(5)
    extra_arguments = {"generator": theirs_random} if sampler == "euler_a" else {}
    for timestep in scheduler.timesteps:
        noise = stand_in(scheduler.scale_model_input(theirs, timestep), timestep)
        theirs = scheduler.step(noise, timestep, theirs, **extra_arguments).prev_sample

    ours, denoised = unit * made.start, torch.zeros_like(unit)
    ours_random = torch.Generator().manual_seed(5)
    for row in made.steps_SK:
        c = dict(zip(COLUMNS, row.tolist(), strict=True))
        noise = stand_in(ours * c["input"], torch.tensor(c["timestep"]))
        before, denoised = denoised, c["denoised_latent"] * ours + c["denoised_noise"] * noise
        fresh = torch.randn(ours.shape, generator=ours_random)
        ours = c["latent"] * ours + c["noise"] * noise + c["history"] * before + c["fresh"] * fresh

    assert made.steps_SK[:, 0].tolist() == scheduler.timesteps.tolist()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_unknown_sampler_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no sampler 'heun'; samplers: euler, euler_a"):
        table("heun", 10)


@pytest.mark.parametrize("steps", [0, -1, 501])
def test_steps_outside_the_schedule_are_refused(steps):
    with pytest.raises(ValueError, match="from 1 to 500"):
        table("euler", steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_allowed_number_of_steps_stays_in_the_schedule(sampler):
    for steps in (1, 2, 3, 7, 333, 499, 500):
        made = table(sampler, steps)
        assert len(made) == steps
        assert 0 <= made.steps_SK[:, 0].min() <= made.steps_SK[:, 0].max() <= 999
