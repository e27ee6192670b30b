"""Which adapter sits in which slot of the LoRA bank. Pure: it decides, the bank carries out.

Slot 0 is the plain model and never given away. An adapter is pinned by every request that draws with it; among the
unpinned, the least recently used one makes room. A slot is not drawn from before its upload has ended.
"""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """The adapter is in the slot; it is pinned for the caller."""

    slot: int


@dataclass(frozen=True)
class Load:
    """The caller is to upload the adapter into the slot, then say `loaded` or `failed`; it is pinned for the caller."""

    slot: int
    evicted: str | None


@dataclass(frozen=True)
class Wait:
    """Ask again after the next `loaded`, `failed` or `release`."""

    why: str


@dataclass
class Seat:
    slot: int
    pins: int
    ready: bool = False


class Residency:
    """Slots 1 to `slots` - 1 of a bank."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, 0, -1))  # popped from the end: slot 1 first
        self._seats: OrderedDict[str, Seat] = OrderedDict()  # least recently used first

    @property
    def resident(self) -> tuple[str, ...]:
        """Adapters ready to draw with, least recently used first."""
        return tuple(key for key, seat in self._seats.items() if seat.ready)

    @property
    def seated(self) -> tuple[str, ...]:
        """Adapters that have a slot, ready or not."""
        return tuple(self._seats)

    def acquire(self, key: str) -> Resident | Load | Wait:
        """Decide where the adapter sits; a decision with a slot pins it until `release`."""
        seat = self._seats.get(key)
        if seat and not seat.ready:
            return Wait(f"{key} is being loaded")
        if seat:
            seat.pins += 1
            self._seats.move_to_end(key)
            return Resident(seat.slot)
        if self._free:
            return self._seat(key, self._free.pop(), None)
        # one whose upload runs may be unpinned too, when its caller has gone; its slot is still being written
        victim = next((other for other, one in self._seats.items() if one.pins == 0 and one.ready), None)
        if victim is None:
            return Wait("every slot of the bank is in use")
        return self._seat(key, self._seats.pop(victim).slot, victim)

    def _seat(self, key: str, slot: int, evicted: str | None) -> Load:
        self._seats[key] = Seat(slot, pins=1)
        return Load(slot, evicted)

    def loaded(self, key: str) -> None:
        """The upload has ended: others may draw with it."""
        self._seats[key].ready = True

    def failed(self, key: str) -> None:
        """The upload did not succeed: the slot is free again, and nobody's pin is left."""
        self._free.append(self._seats.pop(key).slot)

    def release(self, key: str) -> None:
        """One request is done with the adapter; it stays until another needs its slot."""
        seat = self._seats[key]
        assert seat.pins > 0, f"{key} is released more often than acquired"
        seat.pins -= 1
