"""The noise levels that a sampler visits, from noise to picture, in its own scaling of the latent.

Euler's and Heun's methods keep the picture at unit scale and let the noise grow (alpha is 1); the others keep the
latent's variance at one. All levels are those of the diffusers scheduler that `ssd1b.sampling.counterparts` names.
"""

import numpy as np

from ssd1b.sampling.schedule import Floats, Schedule
from ssd1b.sampling.step import Level

RHO = 7
"""Curvature of the levels of Karras et al. (arXiv 2206.00364, equation 5)."""
LCM_STEPS = 50
"""Steps of the solver that consistency models are distilled with; sampling visits some of them (arXiv 2310.04378)."""


def exploding(schedule: Schedule, steps: int) -> list[Level]:
    """Return levels of a picture of unit scale, at training steps that need not be whole."""
    timestep_S = schedule.timesteps(steps)
    sigma_S = np.interp(timestep_S, np.arange(schedule.num_train_timesteps), schedule.sigmas)
    return [
        Level(timestep=float(t), alpha=1.0, std=float(s), prediction_type=schedule.prediction_type)
        for t, s in zip(timestep_S, sigma_S, strict=True)
    ]


def whole(schedule: Schedule, steps: int) -> list[Level]:
    """Return levels at whole training steps, as DDPM and DDIM have them."""
    return at(schedule, schedule.timesteps(steps).round())


def at(schedule: Schedule, timestep_S: Floats) -> list[Level]:
    """Return the levels of training steps; one may hold no signal at all."""
    alpha_S = schedule.alphas[timestep_S.astype(int)]
    return [
        Level(
            timestep=float(t), alpha=float(a**0.5), std=float((1 - a) ** 0.5), prediction_type=schedule.prediction_type
        )
        for t, a in zip(timestep_S, alpha_S, strict=True)
    ]


def lcm(schedule: Schedule, steps: int) -> list[Level]:
    """Return levels at some of the 50 steps of distillation, whatever the schedule's spacing.

    Raises:
        ValueError: more than 50 steps.
    """
    if steps > LCM_STEPS:
        raise ValueError(f"{steps} steps: lcm takes at most {LCM_STEPS}, those it was distilled with")
    every = np.arange(1, LCM_STEPS + 1)[::-1] * (schedule.num_train_timesteps // LCM_STEPS) - 1.0
    return at(schedule, every[np.linspace(0, LCM_STEPS, steps, endpoint=False).astype(int)])


def preserving(schedule: Schedule, steps: int, spacing: str = "") -> list[Level]:
    """Return levels of latents of unit variance, at whole training steps, as DPM-Solver and UniPC have them."""
    timestep_S = schedule.timesteps(steps, one_more=True, spacing=spacing).round()
    return of_sigmas(schedule, timestep_S, schedule.sigmas[timestep_S.astype(int)])


def evenly(schedule: Schedule, steps: int) -> list[Level]:
    """Return the levels of linspace spacing: diffusers' single-step solver knows no other."""
    return preserving(schedule, steps, "linspace")


def karras(schedule: Schedule, steps: int) -> list[Level]:
    """Return levels from the greatest to the smallest sigma by equation 5 of arXiv 2206.00364, whatever the spacing.

    The UNet is told the nearest training step, by log sigma.
    """
    log_sigmas = np.log(schedule.sigmas)
    low, high = schedule.sigmas[0] ** (1 / RHO), schedule.sigmas[-1] ** (1 / RHO)
    sigma_S = (high + np.linspace(0, 1, steps) * (low - high)) ** RHO
    timestep_S = np.interp(np.log(sigma_S), log_sigmas, np.arange(schedule.num_train_timesteps)).round()
    return of_sigmas(schedule, timestep_S, sigma_S)


def of_sigmas(schedule: Schedule, timestep_S: Floats, sigma_S: Floats) -> list[Level]:
    """Return levels of latents of unit variance."""
    alpha_S = 1 / np.hypot(sigma_S, 1)
    return [
        Level(timestep=float(t), alpha=float(a), std=float(s * a), prediction_type=schedule.prediction_type)
        for t, s, a in zip(timestep_S, sigma_S, alpha_S, strict=True)
    ]
