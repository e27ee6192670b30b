"""UniPC of order 2 with B2(h) on the estimate of the picture, corrector included (arXiv 2302.04867, algorithms 5 to 8).

A step first corrects the latent it is given, now that the UNet was asked there, and then predicts the next. Both need
no further call. Short of history, and in the last step, the order is 1.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ssd1b.sampling.schedule import Floats, Schedule
from ssd1b.sampling.step import CLEAN, DENOISED, DENOISED_BEFORE, LATENT, NOTHING, ORIGIN, Level, Step

ORDER = 2


def unipc(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """Return the steps of UniPC-2 as diffusers takes them by default."""
    ends = [*levels, CLEAN]
    order = 0
    for i in range(first, len(levels)):
        latent = correct(ends, i, order) if i > first else LATENT
        order = min(ORDER, len(levels) - i, i - first + 1)
        yield Step(
            levels[i],
            latent=predict(ends, i, order, latent),
            denoised=levels[i].denoised,  # of the latent as it was, not as corrected
            origin=latent,
            denoised_before=DENOISED if i > first else NOTHING,
        )


def predict(ends: Sequence[Level], i: int, order: int, latent: Floats) -> Floats:
    """Return the latent of level i + 1 from that of level i (UniP)."""
    now, after = ends[i], ends[i + 1]
    growth = after.sigma / now.sigma - 1  # expm1(-h)
    ahead = after.std / now.std * latent - after.alpha * growth * now.denoised
    if order == 1:
        return ahead
    h = after.half_log_snr - now.half_log_snr
    r = (ends[i - 1].half_log_snr - now.half_log_snr) / h
    return ahead - after.alpha * growth * 0.5 * (DENOISED - now.denoised) / r


def correct(ends: Sequence[Level], i: int, order: int) -> Floats:
    """Return the latent of level i, corrected by the estimate made there (UniC); order is that of the step to it."""
    now, before = ends[i], ends[i - 1]
    h = now.half_log_snr - before.half_log_snr
    growth = math.expm1(-h)
    ahead = now.std / before.std * ORIGIN - now.alpha * growth * DENOISED
    if order == 1:
        return ahead - now.alpha * growth * 0.5 * (now.denoised - DENOISED)
    r = (ends[i - 2].half_log_snr - before.half_log_snr) / h
    phi_2 = growth / -h - 1  # the paper's phi functions of -h, times powers of it
    phi_3 = phi_2 / -h - 1 / 2
    old, new = np.linalg.solve(np.array([[1.0, 1.0], [r, 1.0]]), np.array([phi_2, 2 * phi_3]) / growth)
    residual = old * (DENOISED_BEFORE - DENOISED) / r + new * (now.denoised - DENOISED)
    corrected: Floats = ahead - now.alpha * growth * residual
    return corrected
