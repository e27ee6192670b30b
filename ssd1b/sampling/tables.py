"""Samplers as tables of per-step coefficients.

Every sampler here is linear in the latent, the predicted noise, the estimate of the clean latent one step earlier and
fresh noise. So one step of any of them is a row of numbers, and rows at unlike steps of unlike samplers advance in one
vector operation:

    denoised = denoised_latent * latent + denoised_noise * noise
    latent   = latent * latent + noise * noise + history * denoised_before + fresh * randn

The noise schedule is SDXL's (scaled linear, 0.00085 to 0.012, 1,000 steps) with leading spacing and an offset of 1, as
its scheduler config asks. Each table agrees with the diffusers scheduler of the same name; the tests hold that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# S sampling steps, K coefficients of a step

TRAIN_STEPS = 1000
MAX_STEPS = 500
"""Past it leading spacing visits neighbouring training steps: more steps only start from less noise."""
ALPHAS: Floats = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS) ** 2)
"""Share of the picture's variance that is left at each training step (DDPM's alpha bar)."""
SIGMAS: Floats = np.sqrt((1 - ALPHAS) / ALPHAS)
"""Standard deviation of the noise at each training step, for a picture of unit scale."""

COLUMNS = ("timestep", "input", "latent", "noise", "history", "fresh", "denoised_latent", "denoised_noise")
"""What the coefficients of a step multiply: `input` scales the latent before the UNet sees it."""


@dataclass(frozen=True)
class Table:
    """One sampler at one number of steps."""

    sampler: str
    start: float
    """What unit noise is multiplied by to make the first latent."""
    steps_SK: Floats
    """Coefficients, one row a step, columns as COLUMNS."""

    def __len__(self) -> int:
        return len(self.steps_SK)


def table(sampler: str, steps: int) -> Table:
    """Return the table of a sampler at a number of steps.

    Raises:
        ValueError: no such sampler, or steps outside 1 to 500.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler {sampler!r}; samplers: {', '.join(SAMPLERS)}")
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{steps} steps: choose from 1 to {MAX_STEPS}")
    return built(sampler, steps)


@cache
def built(sampler: str, steps: int) -> Table:
    start, rows = SAMPLERS[sampler](steps)
    steps_SK = np.stack(np.broadcast_arrays(*(rows[name] for name in COLUMNS)), axis=1).astype(np.float64)
    steps_SK.setflags(write=False)
    return Table(sampler, start, steps_SK)


Columns = dict[str, Floats | float]


def leading(steps: int) -> NDArray[np.int64]:
    """Return the training steps that are visited, from noise to picture (arXiv 2305.08891, table 2)."""
    return np.arange(steps)[::-1] * (TRAIN_STEPS // steps) + 1


def euler(steps: int) -> tuple[float, Columns]:
    """Euler's method on the probability flow (arXiv 2206.00364, algorithm 1 without churn)."""
    timestep = leading(steps)
    sigma = SIGMAS[timestep]
    change = np.append(sigma[1:], 0.0) - sigma
    return float(np.hypot(sigma[0], 1)), in_sigmas(timestep, sigma, change, 0.0)


def euler_a(steps: int) -> tuple[float, Columns]:
    """Euler's method with ancestral noise (k-diffusion, sample_euler_ancestral with eta 1)."""
    timestep = leading(steps)
    sigma = SIGMAS[timestep]
    following = np.append(sigma[1:], 0.0)
    up = following * np.sqrt(1 - (following / sigma) ** 2)
    down = np.sqrt(following**2 - up**2)
    return float(np.hypot(sigma[0], 1)), in_sigmas(timestep, sigma, down - sigma, up)


def in_sigmas(timestep: NDArray[np.int64], sigma: Floats, change: Floats, fresh: Floats | float) -> Columns:
    """Return the columns of a sampler whose latent is picture + sigma * noise."""
    return {
        "timestep": timestep.astype(np.float64),
        "input": 1 / np.hypot(sigma, 1),
        "latent": 1.0,
        "noise": change,
        "history": 0.0,
        "fresh": fresh,
        "denoised_latent": 1.0,
        "denoised_noise": -sigma,
    }


def ddim(steps: int) -> tuple[float, Columns]:
    """DDIM without added noise (arXiv 2010.02502, equation 12); the last step ends at alpha bar of training step 0."""
    timestep = leading(steps)
    alpha = ALPHAS[timestep]
    following = ALPHAS[np.maximum(timestep - TRAIN_STEPS // steps, 0)]
    latent = np.sqrt(following / alpha)
    return 1.0, {
        "timestep": timestep.astype(np.float64),
        "input": 1.0,
        "latent": latent,
        "noise": np.sqrt(1 - following) - latent * np.sqrt(1 - alpha),
        "history": 0.0,
        "fresh": 0.0,
        "denoised_latent": 1 / np.sqrt(alpha),
        "denoised_noise": -np.sqrt((1 - alpha) / alpha),
    }


def dpmpp_2m(steps: int) -> tuple[float, Columns]:
    """DPM-Solver++ (2M), midpoint, first order in the first and last step (arXiv 2211.01095, algorithm 2)."""
    # This solver spaces one step more than it takes, so that none falls on training step 1.
    timestep = (np.arange(steps + 1)[::-1] * (TRAIN_STEPS // (steps + 1)))[:-1] + 1
    return 1.0, multistep(timestep.astype(np.float64), SIGMAS[timestep])


def dpmpp_2m_karras(steps: int) -> tuple[float, Columns]:
    """DPM-Solver++ (2M) at the noise levels of Karras et al. (arXiv 2206.00364, equation 5, rho 7)."""
    low, high = SIGMAS[0] ** (1 / 7), SIGMAS[-1] ** (1 / 7)
    sigma = (high + np.linspace(0, 1, steps) * (low - high)) ** 7
    timestep = np.interp(np.log(sigma), np.log(SIGMAS), np.arange(TRAIN_STEPS)).round()
    return 1.0, multistep(timestep, sigma)


def multistep(timestep: Floats, sigma: Floats) -> Columns:
    """Return the columns of DPM-Solver++ (2M), whose latent is alpha * picture + alpha * sigma * noise."""
    alpha = 1 / np.hypot(sigma, 1)
    following = np.append(sigma[1:], 0.0)
    alpha_following = 1 / np.hypot(following, 1)
    decay = following / sigma  # exp(-h), h the step in log signal-to-noise
    # The second-order term needs the step before, and the last step ends at infinite h: both are first order.
    ratio = np.zeros_like(sigma)
    if len(sigma) > 2:
        ratio[1:-1] = np.log(sigma[1:-1] / following[1:-1]) / np.log(sigma[:-2] / sigma[1:-1])  # h / h before
    weight = alpha_following * (1 - decay)
    now = weight * (1 + ratio / 2)
    return {
        "timestep": timestep,
        "input": 1.0,
        "latent": decay * alpha_following / alpha + now / alpha,
        "noise": -now * sigma,
        "history": -weight * ratio / 2,
        "fresh": 0.0,
        "denoised_latent": 1 / alpha,
        "denoised_noise": -sigma,
    }


SAMPLERS: dict[str, Callable[[int], tuple[float, Columns]]] = {
    "euler": euler,
    "euler_a": euler_a,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_karras": dpmpp_2m_karras,
}
