"""Continuous batching by denoising step: which rows make the next step together. Pure: no torch, no threads, no clock.

A row is one picture in the making. Rows share a batch when they are of one group: equal in the size of their latents
and the length of their text. Prompts, steps left, samplers, guidance and adapters may differ, since each row carries
its own. A row joins at the next step and leaves when its own steps are done, so nobody waits for the last step of a
stranger.

Time is counted in batches, so that what is promised holds on any machine.
"""

import bisect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve.request import Priority
from serve.steps.pace import Pace, Shape

Name = TypeVar("Name", bound=Hashable)
"""What the caller calls a row by."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a row asks of the engine."""

    group: Hashable
    """Rows of one group may share an engine call."""
    steps: int
    """Calls still to make: some samplers call the model twice a step."""
    cells: int = 1
    """Latent positions: what the row takes of a batch's memory."""
    rows: int = 1
    """Rows of the engine's call: guidance makes it two."""
    adapted: bool = False
    """Whether it draws with an adapter, for which the whole call takes the side paths."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of everything makes a step together, and how long who waits is put off."""

    rows: int
    """Rows of a batch at most."""
    cells: int | None = None
    """Latent positions of a batch at most, but always one row; None is no limit."""
    slack: int = 4
    """A row is due when it would be done if every `slack`-th batch took it."""
    patience: int = 32
    """A group that has rows makes a step at least once in so many batches, one more for every other such group."""
    batch_delay: int = 500
    """Batch work is due so many batches later than interactive work that came with it."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a batch holds at least one row; the limit is {self.rows}")

    def fit(self, cells: int) -> int:
        """Return how many rows of so many cells each make a step together."""
        return self.rows if self.cells is None else min(self.rows, max(1, self.cells // cells))


@dataclass(frozen=True)
class Step(Generic[Name]):
    """These rows, which are of one group, make the next step."""

    rows: tuple[Name, ...]


@dataclass(frozen=True)
class Idle:
    """There is no row."""


@dataclass
class Turn:
    """A row's place in the scheduler."""

    need: Need
    priority: Priority
    left: int


class Scheduler(Generic[Name]):
    """Earliest due first.

    A row is due `slack` batches per step after it came, batch work `batch_delay` later. Due times never change, so
    whoever waits comes to the front by itself. The row that is due first decides the group of the next batch, and the
    rows of that group fill it in their order. A group that had to wait `patience` batches has the next one.

    So with G groups that have rows, the first row of each moves at least once in patience + G batches, and no row waits
    for one of its group that came after it was due: none starves, whatever its size, adapter or class.
    """

    def __init__(self, limits: Limits, pace: Pace | None = None) -> None:
        self.limits = limits
        self._pace = pace
        self._turns: dict[Name, Turn] = {}
        self._order: list[tuple[int, int, Name]] = []  # (due, arrival, row), earliest due first
        self._last: dict[Hashable, int] = {}  # group -> the batch it last made a step in, or came in
        self._batches = 0
        self._arrivals = 0

    def __len__(self) -> int:
        """Rows that wait or run."""
        return len(self._turns)

    def __contains__(self, row: object) -> bool:
        return row in self._turns

    def work(self, priority: Priority | None = None) -> int:
        """Return the denoising still to do, of one class or of all, in cell-steps: a step of twice the area is two."""
        turns = (turn for turn in self._turns.values() if priority in (None, turn.priority))
        return sum(turn.left * turn.need.cells for turn in turns)

    def add(self, row: Name, need: Need, priority: Priority = "interactive") -> None:
        """Let a row join at the next step."""
        assert row not in self._turns, f"row {row!r} is here already"
        assert need.steps >= 1, f"row {row!r} has {need.steps} steps to make"
        due = self._batches + self.limits.slack * need.steps
        due += self.limits.batch_delay if priority == "batch" else 0
        self._turns[row] = Turn(need, priority, need.steps)
        bisect.insort(self._order, (due, self._arrivals, row))
        self._arrivals += 1
        self._last.setdefault(need.group, self._batches)

    def next(self) -> Step[Name] | Idle:
        """Decide on the next step."""
        if not self._order:
            return Idle()
        chosen = self._rows_of(self._group())
        if self._pace:
            chosen = chosen[: self._pace.best([self._shape(chosen[: i + 1]) for i in range(len(chosen))])]
        return Step(tuple(chosen))

    def _group(self) -> Hashable:
        """Return whose turn it is."""
        waited, group = max(((self._batches - last, group) for group, last in self._last.items()), key=lambda it: it[0])
        return group if waited >= self.limits.patience else self._turns[self._order[0][2]].need.group

    def _rows_of(self, group: Hashable) -> list[Name]:
        chosen: list[Name] = []
        for _, _, row in self._order:
            need = self._turns[row].need
            if need.group == group:
                chosen.append(row)
                if len(chosen) == self.limits.fit(need.cells):
                    break
        return chosen

    def _shape(self, rows: Sequence[Name]) -> Shape:
        needs = [self._turns[row].need for row in rows]
        adapted = any(need.adapted for need in needs)
        return Shape(needs[0].group, sum(need.rows for need in needs), adapted, len(rows), needs[0].cells)

    def made(self, rows: Sequence[Name], seconds: float = 0.0) -> tuple[Name, ...]:
        """Record that these rows made a step in so many seconds; return the ones that are done, which leave.

        A row cancelled while its step was running is no longer here and is passed over.
        """
        self._batches += 1
        here = [row for row in rows if row in self._turns]
        if here:
            self._last[self._turns[here[0]].need.group] = self._batches
        if self._pace and seconds and len(here) == len(rows):
            self._pace.record(self._shape(here), seconds)
        done = []
        for row in here:
            self._turns[row].left -= 1
            if self._turns[row].left == 0:
                done.append(row)
                self.cancel(row)
        return tuple(done)

    def cancel(self, row: Name) -> bool:
        """Drop a row wherever it is; return whether it was here."""
        turn = self._turns.pop(row, None)
        if turn is None:
            return False
        self._order = [entry for entry in self._order if entry[2] != row]
        if all(other.need.group != turn.need.group for other in self._turns.values()):
            self._last.pop(turn.need.group, None)
        return True
