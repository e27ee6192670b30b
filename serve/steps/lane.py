"""A thread for one kind of work beside the steps: reading prompts, decoding. What waits together goes together.

Without it a step would wait for every picture's decoder; and decoding the pictures that finish together in one call
costs less than one by one.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

logger = logging.getLogger("ray.serve")

Item = TypeVar("Item")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=Hashable)


class Lane(Generic[Item, Result, Kind]):
    """Does work for items of one kind at a time, oldest first; `submit` may be called from any thread."""

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        most: Callable[[Kind], int] = lambda _kind: 1,
        observe: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """Start the thread.

        work takes at most `most` items of one kind and returns their results in order; observe is told its seconds.
        """
        self._work, self._most, self._observe = work, most, observe
        self._waiting: deque[tuple[Kind, Item, Future[Result]]] = deque()
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item, kind: Kind) -> "Future[Result]":
        """Queue an item; a future that is cancelled before its turn costs nothing."""
        future: Future[Result] = Future()
        with self._changed:
            if not self._open:
                raise RuntimeError(f"the {self._thread.name} thread is closed")
            self._waiting.append((kind, item, future))
            self._changed.notify()
        return future

    def check(self) -> None:
        """Raise RuntimeError if the thread has ended."""
        if not self._thread.is_alive():
            raise RuntimeError(f"the {self._thread.name} thread has ended")

    def close(self) -> None:
        """End the thread after the work that runs now; what waits is cancelled."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()
        for _, _, future in self._waiting:
            future.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return
                taken = self._take()
            if taken:
                self._do(taken)

    def _take(self) -> "list[tuple[Item, Future[Result]]]":
        """Return the oldest item and the next ones of its kind; who was cancelled leaves."""
        kind = self._waiting[0][0]
        most, rest = self._most(kind), deque[tuple[Kind, Item, Future[Result]]]()
        taken: list[tuple[Item, Future[Result]]] = []
        for other, item, future in self._waiting:
            if other != kind or len(taken) == most:
                rest.append((other, item, future))
            elif future.set_running_or_notify_cancel():
                taken.append((item, future))
        self._waiting = rest
        return taken

    def _do(self, taken: "list[tuple[Item, Future[Result]]]") -> None:
        """Do the work; items that failed together are tried each alone."""
        began = time.monotonic()
        try:
            results = self._work([item for item, _ in taken])
        except Exception as error:
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            logger.exception("%s failed for %d at once: each alone now", self._thread.name, len(taken))
            for one in taken:
                self._do([one])
            return
        self._observe(time.monotonic() - began)
        for (_, future), result in zip(taken, results, strict=True):
            future.set_result(result)
