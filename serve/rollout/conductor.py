"""One small deployment that watches the registry for all replicas, and knows how each of them is.

Replicas send a report every second or so and are told the target; so a cluster of a hundred asks the registry once.
The registry is asked every few seconds, and at once when its webhook says that something moved.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from serve.rollout.target import Target

logger = logging.getLogger("ray.serve")

POLL_S = 5.0
FORGOTTEN_S = 15.0
"""A replica that has not reported for so long is gone."""

Look = Callable[[Target | None], Target]
"""Reads the target from the registry, given the one before; may block; raises if it cannot."""


@dataclass(frozen=True)
class Heard:
    """The last report of a replica, and when it came (time.monotonic)."""

    report: dict[str, Any]
    at: float


class Conductor:
    """Wrapped as a Serve deployment of one replica by serve/app.py."""

    def __init__(self, model: str, look: Look, poll_s: float = POLL_S) -> None:
        self._model, self._look, self._poll_s = model, look, poll_s
        self._target: Target | None = None
        self._looked = float("-inf")
        self._trouble = ""
        self._looking: asyncio.Task[None] | None = None
        self._heard: dict[str, Heard] = {}

    async def report(self, report: dict[str, Any]) -> Target | None:
        """Take a replica's report and return the target, None as long as the registry never answered."""
        self._heard[report["name"]] = Heard(report, time.monotonic())
        self._look_soon()
        return self._target

    async def nudge(self) -> None:
        """Look now: somebody says the registry has changed. What a running look may have missed, another one sees."""
        if self._looking is not None:
            await self._looking
        self._looked = float("-inf")
        self._look_soon()

    async def board(self) -> dict[str, Any]:
        """Return what the status page shows."""
        self._look_soon()
        now = time.monotonic()
        self._heard = {name: heard for name, heard in self._heard.items() if now - heard.at < FORGOTTEN_S}
        target = self._target
        return {
            "model": self._model,
            "version": target.champion if target else None,
            "canary": asdict(target.canary) if target and target.canary else None,
            "registry": self._trouble or "answers",
            "replicas": [self._heard[name].report for name in sorted(self._heard)],
        }

    def _look_soon(self) -> None:
        if self._looking is None and time.monotonic() - self._looked >= self._poll_s:
            self._looking = asyncio.create_task(self._look_now())

    async def _look_now(self) -> None:
        try:
            self._target = await asyncio.to_thread(self._look, self._target)
            self._trouble = ""
        except Exception as error:  # of whatever kind: the registry is away or wrong, and what serves goes on
            if not self._trouble:
                logger.exception("the registry cannot be read; what serves goes on")
            self._trouble = f"{type(error).__name__}: {error}"
        finally:
            self._looked, self._looking = time.monotonic(), None
