"""A replica's eye on the registry: it looks every few seconds, and at once when a webhook says that something moved."""

import logging
import random
import threading
from collections.abc import Callable

from serve.rollout.target import Target

logger = logging.getLogger("ray.serve")

POLL_S = 5.0
SPREAD = 0.2
"""Looks are spread by so much of the time between them, so that replicas do not ask all at once."""

Look = Callable[[Target | None], Target]
"""Reads the target from the registry, given the one before; may block; raises if it cannot."""


class Watch:
    """Looks on a thread of its own until it is stopped, and steers by what it sees.

    A registry that is away changes nothing: what serves goes on.
    """

    def __init__(self, target: Target, look: Look, steer: Callable[[Target], None], poll_s: float = POLL_S) -> None:
        self._target, self._look, self._steer, self._poll_s = target, look, steer, poll_s
        self.trouble = ""
        """Why the last look failed; empty if it did not."""
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def now(self) -> None:
        """Look now; what a running look may have missed, another one sees."""
        self._wake.set()

    def stop(self) -> None:
        """Stop; does not wait for a look that runs."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._poll_s * random.uniform(1 - SPREAD, 1 + SPREAD))
            self._wake.clear()
            if self._stopped:
                return
            try:
                self._target = self._look(self._target)
                self.trouble = ""
            except Exception as error:  # of whatever kind: the registry is away or says nonsense
                if not self.trouble:
                    logger.exception("the registry cannot be read; what serves goes on")
                self.trouble = f"{type(error).__name__}: {error}"
            self._steer(self._target)
