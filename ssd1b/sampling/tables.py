"""Samplers as tables of per-step coefficients.

Every sampler here is linear in what a row remembers, in the UNet's prediction and in fresh noise. So one step of any
of them is a small matrix, and rows at unlike steps of unlike samplers advance in one vector operation:

    memory = mix_MK @ [memory, prediction, fresh noise]

Each table agrees with the diffusers scheduler that `ssd1b.sampling.counterparts` names; the tests hold that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssd1b.sampling import levels
from ssd1b.sampling.schedule import SDXL, Floats, Schedule
from ssd1b.sampling.solvers import ddpm, dpm, euler, unipc
from ssd1b.sampling.step import CLEAN, INPUTS, Level, Step

# S calls of the UNet, M what a row remembers (step.MEMORY), K what a step mixes (step.INPUTS)

MAX_STEPS = 500
"""Past it leading spacing visits neighbouring training steps: more steps only start from less noise."""
ALPHAS: Floats = SDXL.alphas
"""Alpha bar of SDXL's schedule."""
TRAIN_STEPS = SDXL.num_train_timesteps


class Sampler(NamedTuple):
    """Which noise levels are visited, and the solver that goes from one to the next."""

    levels: Callable[[Schedule, int], list[Level]]
    solve: Callable[[Schedule, Sequence[Level], int], Iterator[Step]]


SAMPLERS = {
    "euler": Sampler(levels.exploding, euler.euler),
    "euler_a": Sampler(levels.exploding, euler.euler_a),
    "heun": Sampler(levels.exploding, euler.heun),
    "ddim": Sampler(levels.whole, ddpm.ddim),
    "ddpm": Sampler(levels.whole, ddpm.ddpm),
    "lcm": Sampler(levels.lcm, ddpm.lcm),
    "dpmpp_2m": Sampler(levels.preserving, dpm.dpmpp_2m),
    "dpmpp_2m_karras": Sampler(levels.karras, dpm.dpmpp_2m),
    "dpmpp_2m_sde": Sampler(levels.preserving, dpm.dpmpp_2m_sde),
    "dpmpp_2m_sde_karras": Sampler(levels.karras, dpm.dpmpp_2m_sde),
    "dpmpp_sde": Sampler(levels.evenly, dpm.dpmpp_sde),
    "dpmpp_sde_karras": Sampler(levels.karras, dpm.dpmpp_sde),
    "unipc": Sampler(levels.preserving, unipc.unipc),
}


@dataclass(frozen=True)
class Table:
    """One sampler at one number of steps, from its first step or from a later one. Its length is in calls."""

    sampler: str
    start: float
    """What unit noise is multiplied by to make the first latent, where there is no picture to start from."""
    call_S2: NDArray[np.float32]
    """For each call the training step that the UNet is told, and what the latent is multiplied by for it."""
    mix_SMK: NDArray[np.float32]
    """What becomes of the row's memory."""
    level_X2: Floats
    """Shares of the clean picture and of unit noise in the latent before each call, and after the last (X = S + 1)."""

    def __len__(self) -> int:
        return len(self.call_S2)

    def draws(self, step: int) -> bool:
        """Return whether a step adds fresh noise. diffusers also draws in last steps that add none, to no effect."""
        return bool(self.mix_SMK[step, 0, INPUTS.index("fresh")])


def table(sampler: str, steps: int, schedule: Schedule = SDXL, skip: int = 0) -> Table:
    """Return the table of a sampler at a number of steps, of which the first `skip` are left out.

    What is left starts without history, as image-to-image does.

    Raises:
        ValueError: no such sampler, or a number of steps that it does not take.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler {sampler!r}; samplers: {', '.join(SAMPLERS)}")
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{steps} steps: choose from 1 to {MAX_STEPS}")
    assert 0 <= skip < steps, f"{skip} of {steps} steps cannot be left out"
    return built(sampler, steps, schedule, skip)


@lru_cache(maxsize=1024)
def built(sampler: str, steps: int, schedule: Schedule, skip: int) -> Table:
    visited = SAMPLERS[sampler].levels(schedule, steps)
    made = list(SAMPLERS[sampler].solve(schedule, visited, skip))
    top = visited[0]
    # diffusers starts a picture of unit scale at pure noise, except for leading spacing, which starts lower down
    pure = top.alpha == 1 and schedule.timestep_spacing != "leading"
    table = Table(
        sampler,
        start=top.std if pure else 1 / top.input,
        call_S2=np.array([(step.level.timestep, step.level.input) for step in made], dtype=np.float32),
        mix_SMK=np.stack([step.mix_MK for step in made]).astype(np.float32),
        level_X2=np.array([(level.alpha, level.std) for level in (*(step.level for step in made), CLEAN)]),
    )
    for array in (table.call_S2, table.mix_SMK, table.level_X2):
        array.setflags(write=False)
    return table
