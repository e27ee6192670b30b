"""Which requests may begin: rows take memory from their first step on, adapters take slots. Pure: no threads, no I/O.

A request that may not begin yet costs next to nothing, so the queue may be long.
"""

import bisect
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve.adapters.residency import Load, Residency, Resident, Wait
from serve.request import Priority

Ticket = TypeVar("Ticket", bound=Hashable)
"""What the caller calls a request by."""


@dataclass(frozen=True)
class Admit(Generic[Ticket]):
    """The request may begin; where its adapter is to sit, None without one. A Load is the caller's to carry out."""

    ticket: Ticket
    key: str | None
    seat: Resident | Load | None


@dataclass
class Ask:
    """A request that waits or draws."""

    rows: int
    key: str | None
    passed: int = 0
    """Requests behind it that began while it waited for a slot."""
    admitted: bool = False
    pinned: bool = False


class Admission(Generic[Ticket]):
    """In the order of arrival, batch work `batch_delay` arrivals later, within a budget of rows.

    A request that there are no rows for holds up all behind it, so that large ones are not passed over for ever. One
    that waits for a slot of the bank, or for an upload, lets others pass, but not more than `patience` of them: then
    nobody begins before it, and requests that draw give their slots back one by one. So none starves, whatever its size
    and however rare its adapter.
    """

    def __init__(self, rows: int, slots: int, patience: int = 64, batch_delay: int = 100) -> None:
        self._limit, self._patience, self._batch_delay = rows, patience, batch_delay
        self._residency = Residency(slots)
        self._asks: dict[Ticket, Ask] = {}
        self._queue: list[tuple[int, int, Ticket]] = []  # (due, arrival, ticket), earliest due first
        self._arrivals = 0
        self._rows = 0  # of the requests that have begun

    @property
    def waiting(self) -> int:
        """Requests that may not begin yet."""
        return len(self._queue)

    @property
    def resident(self) -> tuple[str, ...]:
        """Adapters ready to draw with."""
        return self._residency.resident

    @property
    def keys(self) -> set[str]:
        """What slots hold, or are to hold for the requests that are here."""
        return {*self._residency.seated, *(ask.key for ask in self._asks.values() if ask.key is not None)}

    def join(self, ticket: Ticket, rows: int, key: str | None, priority: Priority = "interactive") -> None:
        """Queue a request of so many rows; key is what its slot of the bank is to hold."""
        assert ticket not in self._asks, f"request {ticket!r} is here already"
        self._asks[ticket] = Ask(rows, key)
        due = self._arrivals + (self._batch_delay if priority == "batch" else 0)
        bisect.insort(self._queue, (due, self._arrivals, ticket))
        self._arrivals += 1

    def decide(self) -> list[Admit[Ticket]]:
        """Return who begins now; ask after every `join`, `leave`, `loaded` and `failed`."""
        admits: list[Admit[Ticket]] = []
        passed: list[Ask] = []
        for entry in list(self._queue):
            ask = self._asks[entry[2]]
            if self._rows and self._rows + ask.rows > self._limit:
                break
            seat = None if ask.key is None else self._residency.acquire(ask.key)
            if isinstance(seat, Wait):
                if ask.passed >= self._patience:
                    break
                passed.append(ask)
                continue
            self._queue.remove(entry)
            self._rows += ask.rows
            ask.admitted, ask.pinned = True, ask.key is not None
            admits.append(Admit(entry[2], ask.key, seat))
            for earlier in passed:
                earlier.passed += 1
            if any(earlier.passed >= self._patience for earlier in passed):
                break
        return admits

    def loaded(self, key: str) -> None:
        """The upload has ended."""
        self._residency.loaded(key)

    def failed(self, key: str) -> None:
        """The upload did not succeed; whoever it was for still leaves."""
        self._residency.failed(key)
        for ask in self._asks.values():
            if ask.key == key:
                ask.pinned = False

    def leave(self, ticket: Ticket) -> None:
        """A request is done, or gone before its turn."""
        ask = self._asks.pop(ticket)
        if not ask.admitted:
            self._queue = [entry for entry in self._queue if entry[2] != ticket]
            return
        self._rows -= ask.rows
        if ask.pinned and ask.key is not None:
            self._residency.release(ask.key)
