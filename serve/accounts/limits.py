"""How much an account may ask for in a minute. Pure: times and counts in, a Room or a refusal out.

A sliding minute: what was asked for in the last 60 seconds counts, so that no burst at the turn of a minute gets
twice the limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(frozen=True)
class Room:
    """What is left of one limit; None where there is no limit."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    """Seconds until the oldest of what counts is a minute old, and room grows."""


UNLIMITED = Room()


@dataclass(frozen=True)
class Full:
    """The limit does not let so much pass now."""

    limit: int
    wait_s: float | None
    """Seconds until it will; None if it never does, since more is wanted at once than a minute allows."""


def room(limit: int | None, past: Sequence[tuple[float, int]], wanted: int, now: float) -> Room | Full:
    """Decide whether `wanted` more may pass.

    past: when and how much in the last minute, oldest first; times in seconds of the clock that `now` is of.
    """
    if limit is None:
        return UNLIMITED
    used = sum(count for _, count in past)
    if used + wanted <= limit:
        oldest = past[0][0] if past else now
        return Room(limit, limit - used - wanted, max(0.0, oldest + WINDOW_S - now))
    for at, count in past:
        used -= count
        if used + wanted <= limit:
            return Full(limit, max(0.0, at + WINDOW_S - now))
    return Full(limit, None)
