"""The thread that makes denoising steps, so that the replica's event loop stays free for requests and health checks."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic

from serve.meters import Meters
from serve.painter import Row
from serve.request import Priority
from serve.steps.pace import Pace
from serve.steps.scheduler import Idle, Limits, Need, Scheduler

logger = logging.getLogger("ray.serve")

FAILURES = 3
"""Failed steps in a row after which the thread calls itself unhealthy, and Serve starts another replica."""
STUCK_S = 1800.0
"""A step that takes so long will not end; the first of a shape may compile for minutes."""
FILL_STEPS = 20
"""Steps over which the filling of batches is averaged, about."""


@dataclass
class Making(Generic[Row]):
    """A row and the promise that it will be finished."""

    row: Row
    need: Need
    watch: Callable[[Row], None] | None
    done: "Future[Row]"


class Stepper(Generic[Row]):
    """Runs the scheduler's batches one after the other. Its methods may be called from any thread."""

    def __init__(self, advance: Callable[[Sequence[Row]], None], limits: Limits, meters: Meters | None = None) -> None:
        self._advance, self._limits = advance, limits
        self._meters = meters or Meters()
        self.pace = Pace()
        self._scheduler: Scheduler[int] = Scheduler(limits, self.pace)
        self._pictures: dict[int, Making[Row]] = {}
        self._next = 0
        self._failures = 0
        self._began: float | None = None  # when the step that runs now began
        self.fill = 0.0
        """How full the latest batches were, of what fits, 0 to 1."""
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stepper", daemon=True)
        self._thread.start()

    def add(
        self,
        row: Row,
        need: Need,
        priority: Priority = "interactive",
        watch: Callable[[Row], None] | None = None,
    ) -> "Future[Row]":
        """Queue a row; the future gives it back after its last step. Cancelling the future takes it out.

        watch is called with the row after each of its steps, on the stepper's thread: it must not block.
        """
        done: Future[Row] = Future()
        with self._changed:
            number, self._next = self._next, self._next + 1
            self._pictures[number] = Making(row, need, watch, done)
            self._scheduler.add(number, need, priority)
            self._changed.notify()
        done.add_done_callback(lambda future: self._leave(number) if future.cancelled() else None)
        return done

    def __len__(self) -> int:
        """Rows that wait or run."""
        with self._changed:
            return len(self._scheduler)

    def work(self, priority: Priority | None = None) -> int:
        """Return the denoising still to do, cell-steps (see `Scheduler.work`)."""
        with self._changed:
            return self._scheduler.work(priority)

    def check(self) -> None:
        """Raise RuntimeError if steps are no longer made; never waits for one."""
        if not self._thread.is_alive():
            raise RuntimeError("the stepper thread has ended")
        if self._failures >= FAILURES:
            raise RuntimeError(f"the last {self._failures} denoising steps failed; see the log of this replica")
        if (began := self._began) is not None and time.monotonic() - began > STUCK_S:
            raise RuntimeError(f"a denoising step has been running for more than {STUCK_S:g} s")

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
                decision = self._scheduler.next()
                if isinstance(decision, Idle):
                    continue
                running = {number: self._pictures[number] for number in decision.rows}
            self._began = time.monotonic()
            failed = self._step(running)
            seconds, self._began = time.monotonic() - self._began, None
            self._failures = self._failures + 1 if len(failed) == len(running) else 0
            made = [number for number in running if number not in failed]
            self._tell(made, running, seconds)
            for number, error in failed.items():
                self._leave(number)
                settle(running[number].done, error)

    def _step(self, running: dict[int, Making[Row]]) -> dict[int, Exception]:
        """Make a step; return the rows that could not.

        Rows that failed together are tried each alone, so that one of them does not take strangers with it.
        """
        try:
            self._advance([picture.row for picture in running.values()])
        except Exception as error:
            logger.exception("a denoising step of %d rows failed", len(running))
            if len(running) == 1:
                return dict.fromkeys(running, error)
            return {number: why for one in running.items() for number, why in self._step(dict([one])).items()}
        return {}

    def _tell(self, made: Sequence[int], running: dict[int, Making[Row]], seconds: float) -> None:
        """Book a step that these rows made, and tell who waits for them."""
        if not made:
            return
        fill = len(made) / self._limits.fit(running[made[0]].need.cells)
        self.fill += (fill - self.fill) / FILL_STEPS
        self._meters.step(seconds, rows=len(made), fill=fill)
        with self._changed:
            finished = set(self._scheduler.made(made, seconds if len(made) == len(running) else 0.0))
            here = [number for number in made if number in self._pictures]
            for number in finished:
                del self._pictures[number]
        for number in here:
            picture = running[number]
            try:
                if picture.watch:
                    picture.watch(picture.row)
            except Exception as error:
                logger.exception("who watches row %d failed", number)
                self._leave(number)
                settle(picture.done, error)
            else:
                if number in finished:
                    settle(picture.done, None, picture.row)


def settle(done: "Future[Row]", error: Exception | None, row: Row | None = None) -> None:
    """Give the future its outcome, unless it was cancelled meanwhile."""
    if not done.set_running_or_notify_cancel():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(row)  # type: ignore[arg-type]
