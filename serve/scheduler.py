"""Continuous batching by denoising step: which rows make the next step together. Pure: no torch, no threads.

A row is one picture in the making. Rows share a batch when they are of one group: equal in the size of their latents
and the length of their text. Prompts, steps left, samplers, guidance and adapters may differ, since each row carries
its own. A row joins at the next step and leaves when its own steps are done, so nobody waits for the last step of a
stranger.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
"""What the caller calls a row by."""


@dataclass
class Turn:
    """A row's place in the scheduler."""

    group: Hashable
    steps_left: int


class Scheduler(Generic[Name]):
    """Oldest row first.

    The oldest row decides the group of the next batch, and the oldest rows of that group fill it. Younger rows of that
    group ride along but cannot hold the turn: once the rows older than another group's first are done, that group has
    its turn. So no row starves; the price is that a lone odd row waits for the rows before it.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a batch holds at least one row; capacity is {capacity}")
        self.capacity = capacity
        self._rows: dict[Name, Turn] = {}  # in order of arrival

    def __len__(self) -> int:
        """Rows that wait or run."""
        return len(self._rows)

    def __contains__(self, row: object) -> bool:
        return row in self._rows

    def add(self, row: Name, group: Hashable, steps: int) -> None:
        """Let a row join at the next step."""
        assert row not in self._rows, f"row {row!r} is here already"
        assert steps >= 1, f"row {row!r} has {steps} steps to make"
        self._rows[row] = Turn(group, steps)

    def batch(self) -> tuple[Name, ...]:
        """Return the rows of the next step, oldest first; empty when there is nothing to do."""
        chosen: list[Name] = []
        for row, turn in self._rows.items():
            if not chosen or turn.group == self._rows[chosen[0]].group:
                chosen.append(row)
            if len(chosen) == self.capacity:
                break
        return tuple(chosen)

    def made(self, rows: Sequence[Name]) -> tuple[Name, ...]:
        """Record that these rows made a step; return the ones that are done, which leave.

        A row cancelled while its step was running is no longer here and is passed over.
        """
        done = []
        for row in rows:
            turn = self._rows.get(row)
            if turn is None:
                continue
            turn.steps_left -= 1
            if turn.steps_left == 0:
                done.append(row)
                del self._rows[row]
        return tuple(done)

    def cancel(self, row: Name) -> bool:
        """Drop a row wherever it is; return whether it was here."""
        return self._rows.pop(row, None) is not None
