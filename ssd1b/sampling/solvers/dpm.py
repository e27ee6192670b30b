"""DPM-Solver++ of second order: multistep (2M), its SDE twin, and the single-step SDE.

The papers' h is a difference of `half_log_snr`. exp(-h) is written as a ratio of sigmas, which is 0 where denoising
ends, so that the last step, of infinite h, needs no case of its own.
"""

from collections.abc import Iterator, Sequence

from ssd1b.sampling.schedule import Floats, Schedule
from ssd1b.sampling.step import CLEAN, DENOISED, FRESH, LATENT, ORIGIN, Level, Step


def dpmpp_2m(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """DPM-Solver++ (2M), midpoint (arXiv 2211.01095, algorithm 2)."""
    for i, now, after, estimate in multistep(levels, first):
        decay = after.sigma / now.sigma
        latent = after.std / now.std * LATENT + after.alpha * (1 - decay) * estimate
        yield Step(levels[i], latent=latent, denoised=now.denoised)


def dpmpp_2m_sde(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """SDE-DPM-Solver++ (2M), midpoint (arXiv 2211.01095, appendix B.2)."""
    for i, now, after, estimate in multistep(levels, first):
        yield Step(levels[i], latent=sde(LATENT, now, after, estimate), denoised=now.denoised)


def multistep(levels: Sequence[Level], first: int) -> Iterator[tuple[int, Level, Level, Floats]]:
    """Yield (i, level, next level, estimate carried on to the middle of the step).

    The first step knows no estimate before, and the last ends at infinite h: both are of first order.
    """
    ends = [*levels, CLEAN]
    for i in range(first, len(levels)):
        now, after, estimate = ends[i], ends[i + 1], ends[i].denoised
        if i > first and after is not CLEAN:
            h, h_before = after.half_log_snr - now.half_log_snr, now.half_log_snr - ends[i - 1].half_log_snr
            estimate = estimate + h / h_before / 2 * (estimate - DENOISED)
        yield i, now, after, estimate


def dpmpp_sde(_: Schedule, levels: Sequence[Level], first: int) -> Iterator[Step]:
    """SDE-DPM-Solver++ (2S): every other step goes again from where the one before set out, now knowing the middle.

    diffusers lets the last step, and one that image-to-image enters in the middle of a pair, be of first order.
    (arXiv 2211.01095, algorithm 1 with the noise of appendix B.1.)
    """
    ends = [*levels, CLEAN]
    for i in range(first, len(levels)):
        now, after = ends[i], ends[i + 1]
        if i % 2 and i != first and after is not CLEAN:
            begin = ends[i - 1]
            h, h_middle = after.half_log_snr - begin.half_log_snr, now.half_log_snr - begin.half_log_snr
            estimate = DENOISED + h / h_middle / 2 * (now.denoised - DENOISED)
            yield Step(now, latent=sde(ORIGIN, begin, after, estimate), denoised=now.denoised)
        else:
            yield Step(now, latent=sde(LATENT, now, after, now.denoised), denoised=now.denoised, origin=LATENT)


def sde(origin: Floats, now: Level, after: Level, estimate: Floats) -> Floats:
    """Go from a latent to the next level along the diffusion SDE (arXiv 2211.01095, equation 18)."""
    decay = after.sigma / now.sigma
    kept = after.std / now.std * decay * origin
    to: Floats = kept + after.alpha * (1 - decay**2) * estimate + after.std * (1 - decay**2) ** 0.5 * FRESH
    return to
