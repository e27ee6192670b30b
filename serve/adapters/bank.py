"""The LoRA bank of a replica: lets requests begin, and puts their adapters into slots while steps go on."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from serve.adapters.admission import Admission
from serve.adapters.catalogue import Catalogue
from serve.adapters.residency import Load, Resident
from serve.adapters.shelf import Shelf
from serve.adapters.wearing import Wearing, wearing
from serve.errors import RequestError, not_offered
from serve.meters import Meters
from serve.request import LoraChoice, Priority

logger = logging.getLogger("ray.serve")

Part = tuple[Any, float]
"""An adapter as the painter read it, and its weight."""


@dataclass(frozen=True)
class Place:
    """What a request draws with: a slot of the bank, and the weight of its rows."""

    slot: int
    scale: float


PLAIN = Place(0, 1.0)
"""Without an adapter."""
LOOKS = 5
"""How often an adapter that cannot be read is looked for anew: it may be being written, or have been replaced."""
LOOK_S = 0.2
"""Between two looks."""
WORN = 1000
"""Slots' contents that are remembered before those that nobody needs are forgotten."""


class Bank:
    """Lends slots, and room for rows. For the event loop's thread only.

    A promoted version of an adapter is another key: it takes a slot of its own and the old one ages. Several adapters
    of one request are one slot, their weights in it.
    """

    def __init__(
        self,
        slots: int,
        rows: int,
        catalogue: Catalogue,
        shelf: Shelf,
        upload: Callable[[int, Sequence[Part]], None],
        meters: Meters,
    ) -> None:
        """Open a bank of so many slots, with slot 0, for requests of so many rows together."""
        self._slots, self._catalogue, self._shelf = slots, catalogue, shelf
        self._upload, self._meters = upload, meters
        self._admission: Admission[int] = Admission(rows, slots)
        self._tickets = count()
        self._promised: dict[int, asyncio.Future[Place]] = {}
        self._worn: dict[str, tuple[Wearing, tuple[str, ...]]] = {}  # key of a slot -> what is in it
        self._loading: set[asyncio.Task[None]] = set()
        self._uploads = ThreadPoolExecutor(1, "uploads")  # they take turns at the engine's lock anyhow

    @property
    def waiting(self) -> int:
        """Requests that may not begin yet."""
        return self._admission.waiting

    @property
    def resident(self) -> tuple[str, ...]:
        """Labels of what is ready to draw with, least recently used first."""
        return tuple(self._worn[key][0].label for key in self._admission.resident)

    @asynccontextmanager
    async def place(
        self, loras: Sequence[LoraChoice], rows: int, priority: Priority = "interactive"
    ) -> AsyncIterator[Place]:
        """Hold room for so many rows, and the slot of what the request wears, while drawing.

        An adapter that is replaced between its being looked up and its being read is drawn with as it is now.

        Raises:
            RequestError: no such adapter, or one that does not fit the model.
        """
        keys = await self._keys(loras, self._catalogue.find)
        for left in reversed(range(LOOKS)):
            wears, key = self._wanted(loras, keys)
            async with self._held(rows, key, priority) as promise:
                try:
                    place = await promise
                except ValueError as error:
                    refusal = unfit(wears, error)
                else:
                    yield Place(place.slot, wears.scale) if place.slot else PLAIN
                    return
            await asyncio.sleep(LOOK_S)
            failed, keys = keys, await self._keys(loras, self._catalogue.renewed)
            if not left or keys == failed:
                raise refusal

    @asynccontextmanager
    async def _held(self, rows: int, key: str | None, priority: Priority) -> AsyncIterator[asyncio.Future[Place]]:
        """Queue for room and a slot; what is promised is held until the end."""
        ticket, promise = next(self._tickets), asyncio.get_running_loop().create_future()
        self._promised[ticket] = promise
        self._admission.join(ticket, rows, key, priority)
        try:
            self._decide()
            yield promise
        finally:
            del self._promised[ticket]
            self._admission.leave(ticket)
            self._decide()

    async def _keys(self, loras: Sequence[LoraChoice], find: Callable[[str], Awaitable[str | None]]) -> dict[str, str]:
        """Return the key of each adapter by name."""
        keys: dict[str, str] = {}
        for choice in loras:
            found = await find(choice.name)
            if found is None:
                raise not_offered("lora", choice.name, await self._catalogue.names())
            keys[choice.name] = found
        return keys

    def _wanted(self, loras: Sequence[LoraChoice], keys: dict[str, str]) -> tuple[Wearing, str | None]:
        """Return what the request wears and the key of its slot, None for slot 0; reading it has begun."""
        wears = wearing(loras)
        if not wears.parts:
            return wears, None
        if self._slots < 2:
            raise RequestError("This engine was opened without room for LoRA adapters", "lora", "lora_unfit")
        parts = tuple(keys[name] for name, _ in wears.parts)
        for part in parts:
            self._shelf.ask(part)
        key = wears.label_of(keys)
        if len(self._worn) > WORN:
            self._worn = {key: self._worn[key] for key in self._admission.keys}
        self._worn[key] = (wears, parts)
        return wears, key

    def close(self) -> None:
        """Upload nothing more."""
        self._uploads.shutdown(wait=False, cancel_futures=True)

    def _decide(self) -> None:
        """Let begin who may."""
        for admit in self._admission.decide():
            seat = admit.seat
            if isinstance(seat, Load):
                self._meters.miss(seat.evicted is not None)
                assert admit.key is not None
                task = asyncio.get_running_loop().create_task(self._fill(admit.ticket, admit.key, seat))
                self._loading.add(task)
                task.add_done_callback(self._loading.discard)
                continue
            if isinstance(seat, Resident):
                self._meters.hit()
            self._give(admit.ticket, Place(seat.slot, 1.0) if seat else PLAIN)

    def _give(self, ticket: int, outcome: Place | Exception) -> None:
        promise = self._promised.get(ticket)
        if promise is None or promise.done():  # gone meanwhile
            return
        if isinstance(outcome, Exception):
            promise.set_exception(outcome)
        else:
            promise.set_result(outcome)

    async def _fill(self, ticket: int, key: str, seat: Load) -> None:
        """Put into a slot what a request wears, even if the request goes meanwhile: the slot is being written."""
        began = time.monotonic()
        wears, keys = self._worn[key]
        try:
            parts = [(await self._shelf.get(part), weight) for part, (_, weight) in zip(keys, wears.parts, strict=True)]
            await asyncio.get_running_loop().run_in_executor(self._uploads, self._upload, seat.slot, parts)
        except Exception as error:
            self._admission.failed(key)
            self._give(ticket, error)
        else:
            self._admission.loaded(key)
            self._meters.swap(time.monotonic() - began)
            logger.info("slot %d holds %s; evicted: %s", seat.slot, key, seat.evicted)
            self._give(ticket, Place(seat.slot, 1.0))
        self._decide()


def unfit(wears: Wearing, error: ValueError) -> RequestError:
    named = f"LoRA '{wears.label}' does" if len(wears.parts) == 1 else f"LoRAs {wears.label} together do"
    return RequestError(f"The {named} not fit this model: {error}", "lora", "lora_unfit")
