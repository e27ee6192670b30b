"""A replica's heartbeat: it tells the conductor how it is and steers by what it hears."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from serve.rollout.target import Target

logger = logging.getLogger("ray.serve")

BEAT_S = 1.0
DEAF_BEATS = 5
"""After so many beats without an answer the registry is asked directly, as often."""

Tell = Callable[[dict[str, Any]], Target | None]
"""Sends a report and returns the target; may block for seconds, and raises when nobody answers."""


class Heart:
    """Beats on a thread of its own until it is stopped."""

    def __init__(
        self,
        report: Callable[[], dict[str, Any]],
        tell: Tell,
        look: Callable[[], Target],
        steer: Callable[[Target], None],
        beat_s: float = BEAT_S,
    ) -> None:
        """report is what is told; look asks the registry itself, when the conductor is away."""
        self._report, self._tell, self._look, self._steer, self._beat_s = report, tell, look, steer, beat_s
        self._deaf = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; does not wait for a beat that runs."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._beat_s):
            try:
                self._beat()
            except Exception:  # whatever fails, the next beat tries again; what serves goes on
                logger.exception("a heartbeat failed")

    def _beat(self) -> None:
        try:
            target = self._tell(self._report())
            self._deaf = 0
        except Exception as error:
            self._deaf += 1
            if self._deaf % DEAF_BEATS:
                return
            logger.warning("the conductor has not answered %d times (%s): asking the registry", self._deaf, error)
            target = self._look()
        if target is not None:
            self._steer(target)
