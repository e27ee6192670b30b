"""Adapters that were read lately, in the memory of the host: a slot that is filled again needs no file."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

BYTES = 2**30
"""Of the host's memory, unless said otherwise: some forty adapters of SDXL at rank 8."""
READERS = 2
"""Files read at once: the steps need the processor too."""
NUMBER_BYTES = 4
"""The matrices of an adapter are float32."""


class Readable(Protocol):
    """An adapter as a painter reads it; only the painter looks into it."""

    @property
    def parameters(self) -> int:
        """Numbers in its matrices."""
        ...


class Shelf:
    """Reads each adapter once for all who ask, and keeps the ones used last. For the event loop's thread only."""

    def __init__(self, read: Callable[[str], Readable], most_bytes: int = BYTES) -> None:
        """read returns the adapter of a key; it may block, and is called on threads of the shelf's own."""
        self._read, self._most_bytes = read, most_bytes
        self._tasks: OrderedDict[str, asyncio.Future[Readable]] = OrderedDict()  # least recently used first
        self._bytes: dict[str, int] = {}
        self._readers = ThreadPoolExecutor(READERS, "adapters")

    def __contains__(self, key: object) -> bool:
        return key in self._bytes

    def ask(self, key: str) -> None:
        """Begin to read an adapter that will be needed."""
        if key in self._tasks:
            self._tasks.move_to_end(key)
            return
        task = asyncio.get_running_loop().run_in_executor(self._readers, self._read, key)
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._settle(key, done))

    async def get(self, key: str) -> Readable:
        """Return the adapter.

        Raises:
            Exception: what reading it raised; who asks next has it read again.
        """
        self.ask(key)
        return await asyncio.shield(self._tasks[key])

    def _settle(self, key: str, done: "asyncio.Future[Readable]") -> None:
        if done.cancelled() or done.exception():
            self._tasks.pop(key, None)
            return
        self._bytes[key] = NUMBER_BYTES * done.result().parameters
        for oldest in list(self._tasks):
            if sum(self._bytes.values()) <= self._most_bytes or oldest == key:
                break
            if oldest in self._bytes:
                del self._tasks[oldest], self._bytes[oldest]

    def close(self) -> None:
        """Read nothing more."""
        self._readers.shutdown(wait=False, cancel_futures=True)
