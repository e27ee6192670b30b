"""What happens during the soak test, and when: moves of the champion, kills, changes of adapters. Pure and seeded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssd1b.recipes.serving import ServeSoak

By = Literal["poll", "webhook"]
How = Literal["crown", "promote", "rollback"]
Change = Literal["add", "replace", "remove"]
CHANGES: tuple[Change, ...] = ("add", "replace", "remove", "replace")
"""In turns."""
CHANGED = 60
"""Adapters of a lower rank than this change: the popular ones, which are in slots and under way."""
EDGE_S = 6.0
"""Before the first thing that happens, and after the last."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """The champion changes."""

    at_s: float
    version: str
    how: How
    """crown: the alias moves. promote: the version was a canary before, from half the way to the move before on.
    rollback: back to the one before, by the command for it."""
    by: By
    """How the endpoint comes to know: it looks by itself, or it is told."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """An adapter changes."""

    at_s: float
    change: Change
    adapter: str
    """One that is there, or the name of a new one."""


def moves(versions: Sequence[str], config: ServeSoak) -> list[Move]:
    """Return the moves, evenly over the time. Each leads to another version than the one before it.

    Raises:
        ValueError: fewer than two versions.
    """
    if len(versions) < 2:
        raise ValueError(
            f"{len(versions)} versions: the champion needs at least two to move between; name more teachers"
        )
    hows: dict[int, How] = {config.moves // 2: "promote", config.moves - 1: "rollback"}
    planned: list[Move] = []
    at, before = 0, 0
    for number, at_s in enumerate(moments(config.moves, config.seconds)):
        how = hows.get(number, "crown") if number else "crown"
        at, before = (before, at) if how == "rollback" else ((at + 1) % len(versions), at)
        by: By = "poll" if number % 2 == 0 else "webhook"
        planned.append(Move(at_s=at_s, version=versions[at], how=how, by=by))
    return planned


def kills(count: int, seconds: float, random: np.random.Generator) -> list[float]:
    """Return random moments, one in each of so many equal parts of the time."""
    part = (seconds - 2 * EDGE_S) / max(1, count)
    return [EDGE_S + part * (i + float(random.uniform())) for i in range(count)]


def swaps(ranked: Sequence[str], config: ServeSoak, random: np.random.Generator) -> list[Swap]:
    """Return the changes, evenly over the time, of adapters among the popular; none changes twice.

    ranked: the adapters there are, most popular first.
    """
    popular = list(ranked[1 : min(CHANGED, len(ranked))])
    chosen = iter([popular[i] for i in random.permutation(len(popular))])
    planned: list[Swap] = []
    for number, at_s in enumerate(moments(config.changes, config.seconds)):
        change = CHANGES[number % len(CHANGES)]
        adapter = f"new-{number:03d}" if change == "add" else next(chosen)
        planned.append(Swap(at_s=at_s, change=change, adapter=adapter))
    return planned


def moments(count: int, seconds: float) -> list[float]:
    """Return evenly spaced moments, none at the edges."""
    return [EDGE_S + (seconds - 2 * EDGE_S) * (i + 0.5) / count for i in range(count)]
