"""Sampler tables against diffusers' schedulers: every step, over the lattice, with a stand-in for the UNet."""

import itertools

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.sampling.counterparts import COUNTERPARTS
from ssd1b.sampling.schedule import Schedule
from ssd1b.sampling.step import INPUTS
from ssd1b.sampling.tables import SAMPLERS, table

# numpy 2 warns of what diffusers' schedulers do to their tensors
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

STEPS = (1, 2, 3, 4, 7, 14, 15, 20, 50)
SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction")
TOLERANCE = 1e-4
"""Greatest difference of any number of a latent, relative to the latent's root mean square; the worst was 1e-5."""
DRAWING = {"euler_a", "ddpm", "lcm", "dpmpp_2m_sde", "dpmpp_2m_sde_karras", "dpmpp_sde", "dpmpp_sde_karras"}


def stand_in(model_input, timestep):
    """Predict noise: any smooth function of both arguments shows a wrong coefficient."""
    return torch.tanh(model_input) * (0.5 + timestep / 2000) + 0.1 * torch.sin(timestep / 100)


def scheduler_of(sampler, schedule):
    kind = COUNTERPARTS[sampler]
    return getattr(diffusers, kind.scheduler)(**kind.config(schedule))


def theirs(sampler, steps, schedule, unit, skip=0, clean=None):
    """The training steps that the UNet is told, and the latents after each call, by diffusers."""
    scheduler = scheduler_of(sampler, schedule)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[skip * scheduler.order :]
    if clean is None:
        latents = unit * scheduler.init_noise_sigma
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skip * scheduler.order)
        latents = scheduler.add_noise(clean, unit, timesteps[:1])
    arguments = {"generator": torch.Generator().manual_seed(5)} if sampler in DRAWING else {}
    after = []
    for timestep in timesteps:
        noise = stand_in(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(noise, timestep, latents, **arguments).prev_sample
        after.append(latents)
    return timesteps.float(), torch.stack(after)


def ours(sampler, steps, schedule, unit, skip=0, clean=None):
    """The same by the table, plainly."""
    made = table(sampler, steps, schedule, skip)
    generator = torch.Generator().manual_seed(5)
    signal, noise = made.level_X2[0]
    latents = unit * made.start if clean is None else signal * clean + noise * unit
    memory = [latents, *[torch.zeros_like(unit)] * 3]
    after = []
    for step in range(len(made)):
        timestep, scale = map(torch.tensor, made.call_S2[step])
        fresh = torch.randn(unit.shape, generator=generator) if made.draws(step) else torch.zeros_like(unit)
        inputs = torch.stack([*memory, stand_in(memory[0] * scale, timestep), fresh])
        memory = list(torch.tensordot(torch.tensor(made.mix_SMK[step]), inputs, dims=1))
        after.append(memory[0])
    return torch.tensor(made.call_S2[:, 0]), torch.stack(after)


def worst(made, wanted):
    """The greatest difference of each step, relative to the root mean square of the wanted latent."""
    return ((made - wanted).abs().amax((1, 2, 3, 4)) / wanted.square().mean((1, 2, 3, 4)).sqrt()).max().item()


@pytest.fixture(scope="module")
def unit():
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("spacing", "prediction"), list(itertools.product(SPACINGS, PREDICTIONS)))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step_is_diffusers(sampler, spacing, prediction, unit):
    schedule = Schedule(timestep_spacing=spacing, prediction_type=prediction)
    for steps in STEPS:
        timesteps, wanted = theirs(sampler, steps, schedule, unit)
        told, made = ours(sampler, steps, schedule, unit)
        torch.testing.assert_close(told, timesteps, rtol=0, atol=1e-3)
        assert worst(made, wanted) < TOLERANCE, f"{steps} steps"


@pytest.mark.parametrize(
    "sampler", [name for name, kind in COUNTERPARTS.items() if "rescale_betas_zero_snr" in kind.reads]
)
def test_zero_terminal_signal_is_diffusers(sampler, unit):
    """Euler's latents begin at 4,096 times the picture, of which float32 keeps no more than 8e-4 (4,096 / 2^24 * 3)."""
    tolerance = 1e-3 if sampler.startswith("euler") else TOLERANCE
    schedule = Schedule(timestep_spacing="trailing", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    for steps in (1, 4, 20):
        _, wanted = theirs(sampler, steps, schedule, unit)
        assert worst(ours(sampler, steps, schedule, unit)[1], wanted) < tolerance, f"{steps} steps"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_other_betas_are_diffusers(sampler, unit):
    schedule = Schedule(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, steps_offset=0, set_alpha_to_one=True)
    _, wanted = theirs(sampler, 10, schedule, unit)
    assert worst(ours(sampler, 10, schedule, unit)[1], wanted) < TOLERANCE


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_that_begin_later_are_diffusers(sampler, unit):
    """As image-to-image begins: at the noise level of the step, without history."""
    clean = torch.randn(unit.shape, generator=torch.Generator().manual_seed(4))
    for steps, skip in itertools.product((5, 6), range(5)):
        timesteps, wanted = theirs(sampler, steps, Schedule(), unit, skip, clean)
        told, made = ours(sampler, steps, Schedule(), unit, skip, clean)
        torch.testing.assert_close(told, timesteps, rtol=0, atol=1e-3)
        assert worst(made, wanted) < TOLERANCE, f"{steps} steps, {skip} left out"


def test_every_sampler_that_draws_is_known():
    assert {name for name in SAMPLERS if any(map(table(name, 5).draws, range(5)))} == DRAWING
    assert set(COUNTERPARTS) == set(SAMPLERS)


def test_unknown_sampler_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no sampler 'plms'; samplers: euler, euler_a"):
        table("plms", 10)


@pytest.mark.parametrize("steps", [0, -1, 501])
def test_steps_outside_the_schedule_are_refused(steps):
    with pytest.raises(ValueError, match="from 1 to 500"):
        table("euler", steps)


def test_lcm_takes_no_more_steps_than_it_was_distilled_with():
    assert len(table("lcm", 50)) == 50
    with pytest.raises(ValueError, match="51 steps: lcm takes at most 50"):
        table("lcm", 51)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(SAMPLERS)),
    st.integers(1, 500),
    st.sampled_from(SPACINGS),
    st.sampled_from(PREDICTIONS),
    st.floats(0, 1, exclude_max=True),
)
def test_every_table_is_sound(sampler, steps, spacing, prediction, share):
    """At every allowed number of steps, begun anywhere: training steps that exist and fall, finite coefficients, no
    reading of what was not remembered, and an end at the estimate (DDIM ends at training step 0, short of it)."""
    steps = min(steps, 50) if sampler == "lcm" else steps
    skip = int(share * steps)
    made = table(sampler, steps, Schedule(timestep_spacing=spacing, prediction_type=prediction), skip)
    assert len(made) == (2 * (steps - skip) - 1 if sampler == "heun" else steps - skip)
    timestep_S = made.call_S2[:, 0]
    assert 0 <= timestep_S.min() <= timestep_S.max() <= 999
    assert (np.diff(timestep_S) <= 0).all()
    assert np.isfinite(made.mix_SMK).all()
    memory_S4 = made.mix_SMK[:, :, 1:4].any(1)
    assert not memory_S4[0].any()
    for step in range(1, len(made)):
        remembered = made.mix_SMK[:step].any((0, 2))[1:]
        assert (remembered | ~memory_S4[step]).all(), f"call {step} reads {INPUTS[1:4]} before they are known"
    if sampler != "ddim":
        np.testing.assert_allclose(made.mix_SMK[-1, 0], made.mix_SMK[-1, 2], atol=1e-4)


def test_tables_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        table("euler", 5).mix_SMK[0] = 0
