"""Euler's and Heun's methods on the probability flow, and Euler's with ancestral noise (k-diffusion).

They work at unit scale of the picture: latent = picture + sigma * noise.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from ssd1b.sampling.schedule import Schedule
from ssd1b.sampling.step import CLEAN, DENOISED, FRESH, LATENT, ORIGIN, Level, Step


def euler(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """Euler's method (arXiv 2206.00364, algorithm 1 without churn): the picture, with as much noise as the next level
    has."""
    for now, after in pairwise([*levels[first:], CLEAN]):
        yield Step(now, latent=now.denoised + after.std * now.noise, denoised=now.denoised)


def euler_a(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """Euler's method with ancestral noise (k-diffusion, sample_euler_ancestral with eta 1)."""
    for now, after in pairwise([*levels[first:], CLEAN]):
        up = after.std * (1 - (after.std / now.std) ** 2) ** 0.5
        down = (after.std**2 - up**2) ** 0.5
        yield Step(now, latent=now.denoised + down * now.noise + up * FRESH, denoised=now.denoised)


def heun(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """Heun's method (arXiv 2206.00364, algorithm 1): two calls a step, but one for the last, which is Euler's."""
    for now, after in pairwise([*levels[first:], CLEAN]):
        yield Step(now, latent=now.denoised + after.std * now.noise, denoised=now.denoised, origin=LATENT)
        if after is not CLEAN:
            slope = ((ORIGIN - DENOISED) / now.std + after.noise) / 2  # of the step's begin and of its end
            yield Step(after, latent=ORIGIN + (after.std - now.std) * slope, denoised=after.denoised)
