"""Samplers on the training steps themselves: DDPM's posterior, DDIM, and the latent consistency model's."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from ssd1b.sampling.schedule import Schedule
from ssd1b.sampling.step import CLEAN, FRESH, LATENT, Level, Step

LCM_DATA = 0.5
LCM_SCALE = 10
"""Standard deviation of the data and scale of the time in a consistency model's boundary condition."""


def ddpm(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """Ancestral sampling from the posterior with its smaller variance (arXiv 2006.11239, equations 6 and 7)."""
    for now, after in pairwise([*levels[first:], CLEAN]):
        alpha = (now.alpha / after.alpha) ** 2
        mean = after.alpha * (1 - alpha) / now.std**2 * now.denoised
        mean = mean + alpha**0.5 * after.std**2 / now.std**2 * LATENT
        yield Step(now, latent=mean + after.std / now.std * (1 - alpha) ** 0.5 * FRESH, denoised=now.denoised)


def ddim(schedule: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """DDIM without added noise (arXiv 2010.02502, equation 12).

    diffusers steps down by a fixed number of training steps, also where the spacing's next one is another, and ends at
    training step 0 or, with set_alpha_to_one, at the clean picture. So does this.
    """
    down = schedule.num_train_timesteps // len(levels)
    end = 1.0 if schedule.set_alpha_to_one else float(schedule.alphas[0])
    for now in levels[first:]:
        to = int(now.timestep) - down
        alpha = float(schedule.alphas[to]) if to >= 0 else end
        latent = alpha**0.5 * now.denoised + (1 - alpha) ** 0.5 * now.noise
        yield Step(now, latent=latent, denoised=now.denoised)


def lcm(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """Multistep sampling of a consistency model (arXiv 2310.04378, algorithm 3): to the picture,
    and back by fresh noise.

    The boundary condition mixes a little of the latent into the estimate (arXiv 2303.01469, appendix C).
    """
    for now, after in pairwise([*levels[first:], CLEAN]):
        time = LCM_SCALE * now.timestep
        skip = LCM_DATA**2 / (time**2 + LCM_DATA**2)
        denoised = time / (time**2 + LCM_DATA**2) ** 0.5 * now.denoised + skip * LATENT
        yield Step(now, latent=after.alpha * denoised + after.std * FRESH, denoised=denoised)
