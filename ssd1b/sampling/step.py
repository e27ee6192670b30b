"""One step of any sampler as coefficients, found by running the sampler's own formula on unit vectors.

Every sampler here is linear in what a row remembers, in the UNet's prediction and in fresh noise. So a solver is
written as its paper writes it, over the vectors below in place of latents, and what comes out are the coefficients.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssd1b.sampling.schedule import Floats

# M what a row remembers, K what a step mixes: M, the prediction, fresh noise

MEMORY = ("latent", "origin", "denoised", "denoised_before")
"""What a row remembers between steps: the latent; where a solver that calls twice, or corrects itself, set out from;
and its last two estimates of the finished latents."""
INPUTS = (*MEMORY, "prediction", "fresh")
"""What a step mixes: the above, what the UNet predicts, and unit noise of the row's own generator."""

LATENT, ORIGIN, DENOISED, DENOISED_BEFORE, PREDICTION, FRESH = np.eye(len(INPUTS))
NOTHING = np.zeros(len(INPUTS))


class Step(NamedTuple):
    """What one call of the UNet is asked, and what becomes of its answer; the mixes are vectors over INPUTS."""

    level: "Level"
    latent: Floats
    denoised: Floats
    origin: Floats = NOTHING
    denoised_before: Floats = NOTHING

    @property
    def mix_MK(self) -> Floats:
        return np.stack([getattr(self, name) for name in MEMORY])


@dataclass(frozen=True, kw_only=True)
class Level:
    """A noise level: the latent is alpha * picture + std * noise."""

    timestep: float
    """The training step that the UNet is told; 0 where it is not asked."""
    alpha: float
    std: float
    prediction_type: str = "epsilon"

    @property
    def input(self) -> float:
        """What the latent is multiplied by before the UNet sees it: to unit variance."""
        return 1 / math.hypot(self.alpha, self.std)

    @property
    def sigma(self) -> float:
        """Noise to a picture of unit scale."""
        return self.std / self.alpha

    @property
    def half_log_snr(self) -> float:
        """The time of DPM-Solver, lambda = log(alpha / std) (arXiv 2206.00927, section 2.1)."""
        return -math.log(self.sigma)

    @property
    def denoised(self) -> Floats:
        """The estimate of the finished latents."""
        if self.prediction_type == "epsilon":
            return (LATENT - self.std * PREDICTION) / self.alpha
        # v turns latent and prediction by the angle of the level (arXiv 2202.00512, appendix D)
        return self.input * (self.alpha * self.input * LATENT - self.std * PREDICTION)

    @property
    def noise(self) -> Floats:
        """The estimate of the noise."""
        if self.prediction_type == "epsilon":
            return PREDICTION
        return self.input * (self.alpha * PREDICTION + self.std * self.input * LATENT)


CLEAN = Level(timestep=0, alpha=1, std=0)
"""Where denoising ends."""
