"""The noise schedule that a model was trained with, and the training steps that sampling visits.

It is what a pipeline's `scheduler/scheduler_config.json` says of the model. Which solver the file names, and that
solver's own options, are not read: the sampler's name says that. SDXL's values are the defaults.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEADING = ("PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LCMScheduler")
"""Schedulers of diffusers that space `leading` where a config does not say; the others take `linspace`."""
SMALLEST_ALPHA = 2.0**-24
"""What diffusers puts for a terminal alpha bar of zero where it divides by it."""
CHOICES = {
    "beta_schedule": ("scaled_linear", "linear"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "prediction_type": ("epsilon", "v_prediction"),
}
REFUSED = {
    "trained_betas": None, "sigma_min": None, "sigma_max": None, "sigma_data": None, "thresholding": False,
    "interpolation_type": "linear", "timestep_type": "discrete", "final_sigmas_type": "zero", "use_flow_sigmas": False,
    "use_exponential_sigmas": False, "use_beta_sigmas": False, "use_lu_lambdas": False,
}  # fmt: skip
"""Keys that would change the pictures, with the only value that is understood. `clip_sample` is not among them: it is
meant for pixels, and most samplers of diffusers pass over it too."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A noise schedule; the fields are named as in diffusers' configs."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    """scaled_linear: the square roots of the betas are evenly spaced; linear: the betas are."""
    timestep_spacing: str = "leading"
    """leading, trailing or linspace (arXiv 2305.08891, table 2)."""
    steps_offset: int = 1
    """Added to the training steps of leading spacing."""
    prediction_type: str = "epsilon"
    """What the UNet predicts: the noise, or v = alpha * noise - sigma * picture (arXiv 2202.00512, appendix D)."""
    rescale_betas_zero_snr: bool = False
    """No signal is left at the last training step (arXiv 2305.08891, algorithm 1)."""
    set_alpha_to_one: bool = False
    """DDIM's last step ends at the clean picture, rather than at alpha bar of training step 0."""

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            if (value := getattr(self, key)) not in allowed:
                raise ValueError(f"{key} {value!r} is not supported: choose from {', '.join(allowed)}")
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError("rescale_betas_zero_snr needs prediction_type 'v_prediction': pure noise tells nothing")
        if not (
            self.num_train_timesteps >= 2 and 0 <= self.steps_offset <= 1 and 0 < self.beta_start < self.beta_end < 1
        ):
            raise ValueError(
                f"num_train_timesteps {self.num_train_timesteps}, steps_offset {self.steps_offset}, beta_start "
                f"{self.beta_start}, beta_end {self.beta_end}: want at least 2 steps, an offset of 0 or 1 and "
                f"0 < beta_start < beta_end < 1"
            )

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Schedule":
        """Return the schedule of a scheduler config of diffusers.

        Raises:
            ValueError: the config lacks what has no common default, or asks for what is not supported; names the key.
        """
        for key in ("beta_start", "beta_end", "beta_schedule"):
            if key not in config:
                raise ValueError(f"the scheduler config has no {key}: give that of a diffusion model with betas")
        for key, understood in REFUSED.items():
            if config.get(key, understood) != understood:
                raise ValueError(f"{key} {config[key]!r} is not supported: the scheduler config needs {understood!r}")
        absent = "leading" if config.get("_class_name") in LEADING else "linspace"
        given = {"timestep_spacing": absent, "steps_offset": 0, **config}
        return Schedule(**{field.name: given[field.name] for field in fields(Schedule) if field.name in given})

    @staticmethod
    def read(folder: Path) -> "Schedule":
        """Return the schedule of a folder in diffusers layout.

        Raises:
            ValueError: the folder has no scheduler config, or see `of`.
        """
        path = folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            raise ValueError(f"{path} is missing: give the folder of a whole pipeline in diffusers layout")
        return Schedule.of(json.loads(path.read_text()))

    @cached_property
    def alphas(self) -> Floats:
        """Share of the picture's variance that is left at each training step (DDPM's alpha bar).

        Worked out in float32, as diffusers does: 1 - alpha is small near the picture, and its rounding shows.
        """
        power = 0.5 if self.beta_schedule == "scaled_linear" else 1.0
        roots = torch.linspace(self.beta_start**power, self.beta_end**power, self.num_train_timesteps)
        alphas = torch.cumprod(1 - roots ** (1 / power), dim=0)
        if self.rescale_betas_zero_snr:
            left = alphas.sqrt()
            alphas = ((left - left[-1]) * (left[0] / (left[0] - left[-1]))) ** 2
        return alphas.double().numpy()

    @cached_property
    def sigmas(self) -> Floats:
        """Standard deviation of the noise at each training step, for a picture of unit scale."""
        alphas = np.maximum(self.alphas, SMALLEST_ALPHA)
        return np.sqrt((1 - alphas) / alphas)

    def timesteps(self, steps: int, *, one_more: bool = False, spacing: str = "") -> Floats:
        """Return the training steps that are visited, from noise to picture, not rounded.

        one_more spaces one step more and leaves the last out, as DPM-Solver and UniPC do so that none falls on the
        first training step; trailing spacing has no need of it. spacing replaces the schedule's own.
        """
        total, spaced = self.num_train_timesteps, steps + one_more
        match spacing or self.timestep_spacing:
            case "trailing":
                # cut because rounding makes this range one too long at some steps (61, 103, ...)
                return np.arange(total, 0, -total / steps, dtype=np.float64)[:steps].round() - 1
            case "leading":
                every = np.arange(spaced, dtype=np.float64) * (total // spaced) + self.steps_offset
            case _:
                every = np.linspace(0, total - 1, spaced)
        return every[::-1][:steps]


SDXL = Schedule()
