"""What became of the requests of the soak test: counts and latencies by dialect, and how long each move took. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssd1b.trials.load.soak_plan import Move
from ssd1b.trials.load.soak_wishes import Wish
from ssd1b.trials.load.wardrobe import Wardrobe

Verdict = Literal["answered", "refused", "failed", "lost"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """One request and its answer. Times are seconds since 1970."""

    wish: Wish
    began: float
    ended: float
    pixels_HW3: NDArray[np.uint8] | None = None
    version: str = ""
    """That drew the picture, as its file says."""
    error: str = ""
    clean: bool = False
    """The error says that there is no such adapter."""

    @property
    def latency_s(self) -> float:
        return self.ended - self.began


def verdict(told: Told, wardrobe: Wardrobe, patience_s: float) -> Verdict:
    """Return what a request came to. A picture with an adapter that had gone is a failure as an error is."""
    if told.latency_s > patience_s:
        return "lost"
    name = told.wish.ask.adapter
    if told.pixels_HW3 is not None:
        return "answered" if name is None or wardrobe.drawable(name, told.began, told.ended) else "failed"
    if told.clean and name is not None and wardrobe.refusable(name, told.began, told.ended):
        return "refused"
    return "failed"


def by_dialect(told: Sequence[Told], wardrobe: Wardrobe, patience_s: float) -> list[dict[str, Any]]:
    """Return a line for each dialect, and one for all of them."""
    dialects = sorted({one.wish.dialect for one in told})
    groups = [(name, [one for one in told if one.wish.dialect == name]) for name in dialects]
    return [line_of(name, group, wardrobe, patience_s) for name, group in [*groups, ("all", list(told))]]


def line_of(name: str, told: Sequence[Told], wardrobe: Wardrobe, patience_s: float) -> dict[str, Any]:
    verdicts = [verdict(one, wardrobe, patience_s) for one in told]
    latencies = sorted(one.latency_s for one, came in zip(told, verdicts, strict=True) if came == "answered")
    return {
        "dialect": name,
        "sent": len(told),
        **{kind: verdicts.count(kind) for kind in ("answered", "refused", "failed", "lost")},
        "p50_s": percentile(latencies, 0.5),
        "p99_s": percentile(latencies, 0.99),
    }


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value by nearest rank, None of none."""
    return round(ordered[max(0, int(np.ceil(share * len(ordered))) - 1)], 2) if ordered else None


# ---- moves of the champion


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A move that was made: what it was, when, and between which versions."""

    move: Move
    at: float
    """Seconds since 1970."""
    before: str
    canary: bool = False
    """The version was a canary until then, so that pictures of it came before."""


def move_line(moved: Moved, until: float, told: Sequence[Told]) -> dict[str, Any]:
    """Return how long after the move the first picture of the new version came, and the last of the old one.

    until: when the next move was made. A picture counts when it came; one of the old version may have begun before.
    """
    after = [one for one in told if one.pixels_HW3 is not None and moved.at < one.ended <= until]
    new = [one.ended - moved.at for one in after if one.version == moved.move.version]
    old = [one.ended - moved.at for one in after if one.version == moved.before]
    return {
        "move": f"{moved.before} to {moved.move.version}",
        "how": moved.move.how,
        "by": moved.move.by,
        "first_new_s": round(min(new), 1) if new else None,
        "last_old_s": round(max(old), 1) if old else None,
        "old_after_new": sum(one > min(new) for one in old) if new else None,
    }


def bank_line(samples: dict[tuple[str, str], float]) -> dict[str, int]:
    """Return the sums of the counters of the bank over all engine processes there were (see `soak_watch.counters`)."""
    sums: dict[str, float] = {}
    for (name, _), value in samples.items():
        sums[name] = sums.get(name, 0.0) + value
    return {name: round(value) for name, value in sorted(sums.items())}


def median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 1) if values else None
