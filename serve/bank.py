"""The LoRA bank of a replica: finds an adapter in the registry and puts it into a slot while steps go on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from serve.errors import RequestError, not_offered
from serve.residency import Load, Residency, Wait

logger = logging.getLogger("ray.serve")


class Adapters(Protocol):
    """Where adapters come from. The verbs may block; the bank calls them on a thread."""

    def names(self) -> tuple[str, ...]:
        """Return the short names on offer."""

    def find(self, name: str) -> str | None:
        """Return what identifies the version on offer now, or None if there is no such adapter."""

    def fetch(self, key: str) -> Path:
        """Return a folder with the adapter of a key from `find`."""


class Bank:
    """Lends slots. A promoted version of an adapter is another key: it takes a slot of its own and the old one ages."""

    def __init__(self, slots: int, adapters: Adapters, upload: Callable[[int, Path], None]) -> None:
        self._residency = Residency(slots)
        self._adapters = adapters
        self._upload = upload
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def slot(self, name: str | None) -> AsyncIterator[int]:
        """Hold the slot of an adapter while drawing; slot 0 for None.

        Raises:
            RequestError: no such adapter, or one that does not fit the model.
        """
        if name is None:
            yield 0
            return
        key = await asyncio.to_thread(self._adapters.find, name)
        if key is None:
            known = await asyncio.to_thread(self._adapters.names)
            raise not_offered("lora", name, known)
        slot = await self._acquire(name, key)
        try:
            yield slot
        finally:
            self._release(key)

    async def _acquire(self, name: str, key: str) -> int:
        while isinstance(decision := self._residency.acquire(key), Wait):
            await self._changed.wait()
        if not isinstance(decision, Load):
            return decision.slot
        loading = asyncio.create_task(self._load(name, key, decision))
        try:
            await asyncio.shield(loading)  # an upload that has begun ends, even if the caller who asked for it goes
        except asyncio.CancelledError:
            loading.add_done_callback(lambda load: None if load.exception() else self._release(key))
            raise
        return decision.slot

    async def _load(self, name: str, key: str, decision: Load) -> None:
        try:
            folder = await asyncio.to_thread(self._adapters.fetch, key)
            await asyncio.to_thread(self._upload, decision.slot, folder)
        except Exception as error:
            self._residency.failed(key)
            self._tell()
            if isinstance(error, ValueError):
                raise RequestError(
                    f"The LoRA '{name}' does not fit this model: {error}", "lora", "lora_unfit"
                ) from error
            raise
        self._residency.loaded(key)
        self._tell()
        logger.info("slot %d holds %s; evicted: %s", decision.slot, key, decision.evicted)

    def _release(self, key: str) -> None:
        self._residency.release(key)
        self._tell()

    def _tell(self) -> None:
        """Wake everyone who waits for a slot; they ask again."""
        self._changed.set()
        self._changed = asyncio.Event()
