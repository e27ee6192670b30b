"""Chance that follows the sample, not the worker.

Everything random about a training row (noise, timestep, posterior draw, caption, dropout, mirroring) is drawn from a
generator keyed by (seed, epoch, sample_id). So a sample meets the same noise at any world size and after any restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# C latent channels, H latent height, W latent width

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """What chance decides about one row of one epoch."""

    timestep: int
    caption: str | None
    """None: the caption is dropped, so that classifier-free guidance is trained."""
    mirrored: bool
    posterior_CHW: Floats
    """Standard normal: the latent is mean + std * posterior."""
    noise_CHW: Floats
    offset_C: Floats
    """Standard normal: by how much, in units of the recipe's noise offset, a channel's noise is shifted as a whole."""


def draw(
    seed: int,
    epoch: int,
    sample_id: int,
    *,
    captions: Sequence[str],
    shape: tuple[int, int, int],
    timesteps: int = 1000,
    drop_share: float = 0.0,
    mirror_share: float = 0.0,
) -> Draw:
    """Return the draw of one row. A row without captions counts as dropped.

    The order of the draws below is part of the format: changing it changes every run, and the golden file says so.
    """
    random = np.random.default_rng((seed, epoch, sample_id))
    timestep = int(random.integers(timesteps))
    dropped, mirrored = random.random(2) < (drop_share, mirror_share)
    pick = int(random.integers(max(1, len(captions))))
    return Draw(
        timestep=timestep,
        caption=None if dropped or not captions else captions[pick],
        mirrored=bool(mirrored),
        posterior_CHW=random.standard_normal(shape, dtype=np.float32),
        noise_CHW=random.standard_normal(shape, dtype=np.float32),
        offset_C=random.standard_normal(shape[0], dtype=np.float32),
    )
