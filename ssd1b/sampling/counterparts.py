"""The diffusers scheduler that makes the same picture as each sampler: for tests and for model cards."""

from collections.abc import Mapping
from typing import NamedTuple

from ssd1b.sampling.schedule import Schedule

BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
SPACING = ("timestep_spacing", "steps_offset")
ZERO_SNR = ("rescale_betas_zero_snr",)
KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
# the single-step solver must be told what it else changes by itself, with a warning
SINGLE_STEP = {**SDE, "lower_order_final": True}
# meant for pixels, and on where a config is silent
UNCLIPPED = {"clip_sample": False}


class Counterpart(NamedTuple):
    """A scheduler class of diffusers, by name, with what it takes beside the schedule."""

    scheduler: str
    options: Mapping[str, object]
    reads: tuple[str, ...]
    """Fields of the schedule that it reads."""

    def config(self, schedule: Schedule) -> dict[str, object]:
        """Return the keyword arguments that make the scheduler."""
        return {**{key: getattr(schedule, key) for key in self.reads}, **self.options}


COUNTERPARTS = {
    "euler": Counterpart("EulerDiscreteScheduler", {}, BETAS + SPACING + ZERO_SNR),
    "euler_a": Counterpart("EulerAncestralDiscreteScheduler", {}, BETAS + SPACING + ZERO_SNR),
    "heun": Counterpart("HeunDiscreteScheduler", {}, BETAS + SPACING),
    "ddim": Counterpart("DDIMScheduler", UNCLIPPED, (*BETAS, *SPACING, *ZERO_SNR, "set_alpha_to_one")),
    "ddpm": Counterpart("DDPMScheduler", UNCLIPPED, BETAS + SPACING + ZERO_SNR),
    "lcm": Counterpart("LCMScheduler", UNCLIPPED, BETAS + ZERO_SNR),
    "dpmpp_2m": Counterpart("DPMSolverMultistepScheduler", {}, BETAS + SPACING + ZERO_SNR),
    "dpmpp_2m_karras": Counterpart("DPMSolverMultistepScheduler", KARRAS, BETAS + SPACING + ZERO_SNR),
    "dpmpp_2m_sde": Counterpart("DPMSolverMultistepScheduler", SDE, BETAS + SPACING + ZERO_SNR),
    "dpmpp_2m_sde_karras": Counterpart("DPMSolverMultistepScheduler", {**SDE, **KARRAS}, BETAS + SPACING + ZERO_SNR),
    "dpmpp_sde": Counterpart("DPMSolverSinglestepScheduler", SINGLE_STEP, BETAS),
    "dpmpp_sde_karras": Counterpart("DPMSolverSinglestepScheduler", {**SINGLE_STEP, **KARRAS}, BETAS),
    "unipc": Counterpart("UniPCMultistepScheduler", {}, BETAS + SPACING + ZERO_SNR),
}
"""By sampler. `DPMSolverSDEScheduler`, another DPM++ SDE of diffusers, draws its noise from a Brownian tree of a third
library and is not followed."""
