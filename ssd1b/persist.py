"""A job that outlives its own process: it is run in a child, and run again when that is lost.

The driver of a Ray job dies of too little memory, with the cluster's head, with an actor that it cannot do without.
What it was doing is kept under the storage root, so starting it again is all there is to do; `persist` does it. A job
that ends by itself, well or with a message (command.py), is not started again; neither is one that is told to end.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ssd1b import command
from ssd1b.command import PASSING, REFUSED, Recipes, Result, show

LIFELINE = "SSD1B_LIFELINE"
"""Names the file descriptor whose other end the parent holds: it closes when the parent dies, however it dies."""
FUTILE = 12
"""Starts in a row without progress after which a job is given up: about five minutes of waiting between them."""
LONGEST_WAIT_S = 60.0
LOOK_S = 0.1


def main(recipes: Recipes, job: Callable[[Any], Result], progress: Callable[[Any], int]) -> None:
    """Run one job as a command (see `command.main`) that outlives its own process.

    progress returns from the config a number that grows while the job gets on.
    """
    if LIFELINE in os.environ:
        follow_parent()
        command.main(recipes, job)
        return
    config = command.read(recipes)
    status = persist(itself(), lambda: progress(config))
    raise SystemExit(status if status >= 0 else 128 - status)


def persist(arguments: Sequence[str], progress: Callable[[], int], wait_s: float = 1.0) -> int:
    """Run a command until it ends by itself, and return its status; a signal that ended it is negative.

    progress returns a number that grows while the job gets on; wait_s is the first wait between two starts, which
    doubles up to a minute. SIGTERM and SIGINT are meant for the job: it is not started again after them.
    """
    told = Told()
    futile = 0
    while True:
        before, started = progress(), time.monotonic()
        status = told.run(arguments)
        if told.signals or status in (0, REFUSED):
            return status
        futile = futile + 1 if progress() <= before else 1
        lasted = f"after {time.monotonic() - started:.0f} s ({ended(status)})"
        if futile > FUTILE:
            show(f"the job was lost {lasted}, {futile} times in a row without progress: it is given up")
            return status
        pause_s = min(wait_s * 2 ** (futile - 1), LONGEST_WAIT_S)
        show(f"the job was lost {lasted}; it is started again in {pause_s:.0f} s")
        if told.within(pause_s):
            return status


class Told:
    """What this process was told to do with its child, which gets the same signal."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.hear)

    def hear(self, number: int, frame: object) -> None:
        del frame
        self.signals.append(number)
        # a terminal tells the whole foreground group; SIGTERM is told to one process
        if number == signal.SIGTERM and self.child is not None:
            self.child.send_signal(number)

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command to its end and return its status."""
        theirs, ours = os.pipe()
        env = os.environ | {LIFELINE: str(theirs)}
        self.child = subprocess.Popen(arguments, env=env, pass_fds=(theirs,))
        os.close(theirs)
        if self.signals:  # it came before there was anybody to tell
            self.child.terminate()
        try:
            return self.child.wait()
        finally:
            os.close(ours)

    def within(self, seconds: float) -> bool:
        """Wait, and return whether this process was told to end meanwhile; then at once."""
        end = time.monotonic() + seconds
        while not self.signals and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_S))  # a sleep goes on after a signal
        return bool(self.signals)


def ended(status: int) -> str:
    """Say how a process ended."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return "it may go later" if status == PASSING else f"status {status}"


def follow_parent() -> None:
    """End this process soon after the one that has started it: two of a job would be in each other's way."""
    lifeline = int(os.environ.pop(LIFELINE))

    def wait() -> None:
        os.read(lifeline, 1)  # returns when the other end is closed: nothing is ever written
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def itself() -> list[str]:
    """Return the command that this process was started with."""
    return [sys.executable, *sys.orig_argv[1:]]
