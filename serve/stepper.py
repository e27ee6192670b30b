"""The thread that makes denoising steps, so that the replica's event loop stays free for requests and health checks."""

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic

from serve.painter import Row
from serve.scheduler import Scheduler

logger = logging.getLogger("ray.serve")

FAILURES = 3
"""Failed steps in a row after which the thread calls itself unhealthy, and Serve starts another replica."""


@dataclass
class Making(Generic[Row]):
    """A row and the promise that it will be finished."""

    row: Row
    done: "Future[Row]"


class Stepper(Generic[Row]):
    """Runs the scheduler's batches one after the other. Its methods may be called from any thread."""

    def __init__(self, advance: Callable[[Sequence[Row]], None], capacity: int) -> None:
        self._advance = advance
        self._scheduler: Scheduler[int] = Scheduler(capacity)
        self._pictures: dict[int, Making[Row]] = {}
        self._next = 0
        self._failures = 0
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stepper", daemon=True)
        self._thread.start()

    def add(self, row: Row, group: Hashable, steps: int) -> "Future[Row]":
        """Queue a row; the future gives it back after its last step. Cancelling the future takes it out.

        It makes its steps with rows of its group only.
        """
        done: Future[Row] = Future()
        with self._changed:
            number, self._next = self._next, self._next + 1
            self._pictures[number] = Making(row, done)
            self._scheduler.add(number, group, steps)
            self._changed.notify()
        done.add_done_callback(lambda future: self._leave(number) if future.cancelled() else None)
        return done

    def check(self) -> None:
        """Raise RuntimeError if steps are no longer made."""
        if not self._thread.is_alive():
            raise RuntimeError("the stepper thread has ended")
        if self._failures >= FAILURES:
            raise RuntimeError(f"the last {self._failures} denoising steps failed; see the log of this replica")

    def close(self) -> None:
        """End the thread after the step that runs now; pictures in the making are cancelled."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()
        for picture in list(self._pictures.values()):
            picture.done.cancel()

    def _leave(self, number: int) -> None:
        with self._changed:
            self._scheduler.cancel(number)
            self._pictures.pop(number, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._scheduler) or not self._open)
                if not self._open:
                    return
                batch = self._scheduler.batch()
                running = [self._pictures[number] for number in batch]
            try:
                self._advance([picture.row for picture in running])
            except Exception as error:
                logger.exception("a denoising step of %d rows failed", len(batch))
                self._failures += 1
                for number, picture in zip(batch, running, strict=True):
                    self._leave(number)
                    settle(picture.done, error)
                continue
            self._failures = 0
            with self._changed:
                finished = [self._pictures.pop(number) for number in self._scheduler.made(batch)]
            for picture in finished:
                settle(picture.done, None, picture.row)


def settle(done: "Future[Row]", error: Exception | None, row: Row | None = None) -> None:
    """Give the future its outcome, unless it was cancelled meanwhile."""
    if not done.set_running_or_notify_cancel():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(row)  # type: ignore[arg-type]
