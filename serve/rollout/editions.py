"""Versions of the model side by side in one replica: a new one is opened beside the one that draws, which is closed
once its last picture is done. No request is refused or restarted for it.

Weights are not swapped under a running engine: pictures in the making would be begun by one model and ended by another.
The price is memory for two versions while they change over, three with a canary.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from serve.request import GenerationRequest
from serve.rollout.target import Target

logger = logging.getLogger("ray.serve")

RETRY_S = 60.0
"""How long a version that did not open is left alone."""


class Closable(Protocol):
    def close(self) -> None: ...


Shop = TypeVar("Shop", bound=Closable)
"""One version, opened: a workshop (serve/workshop.py)."""


@dataclass
class Edition(Generic[Shop]):
    """A version that is open, and how many requests draw with it."""

    version: str
    shop: Shop
    held: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a version did not open, and when (time.monotonic)."""

    why: str
    at: float = field(default_factory=time.monotonic)


class Editions(Generic[Shop]):
    """Follows a target. Its methods may be called from any thread; none waits for a version to open or close."""

    def __init__(self, target: Target, open_version: Callable[[str], Shop], retry_s: float = RETRY_S) -> None:
        """Open the champion, which takes its time; a canary is opened on the way.

        Raises:
            ValueError: the champion does not open.
        """
        self._open_version, self._retry_s = open_version, retry_s
        self._lock = threading.RLock()
        self._editions = {target.champion: Edition(target.champion, open_version(target.champion))}
        self._target = target
        self._serving = target.champion
        self._opening: str | None = None
        self._failed: dict[str, Failure] = {}
        self._closed = False
        self.steer(target)

    @contextmanager
    def lend(self, request: GenerationRequest) -> Iterator[Shop]:
        """Hold the version that draws a request; it stays open until the request is done."""
        with self._lock:
            edition = self._editions.get(self._target.version_for(request)) or self._editions[self._serving]
            edition.held += 1
        try:
            yield edition.shop
        finally:
            with self._lock:
                edition.held -= 1
            self._settle()

    @property
    def now(self) -> Shop:
        """The champion, or the version that serves until it is open."""
        with self._lock:
            return self._editions[self._serving].shop

    @property
    def shops(self) -> tuple[Shop, ...]:
        """All that are open."""
        with self._lock:
            return tuple(edition.shop for edition in self._editions.values())

    def steer(self, target: Target) -> None:
        """Follow a target: open what it names, beside what serves; close what it does not, when it is done."""
        with self._lock:
            if target.champion != self._target.champion:
                logger.info("the champion is version %s now, it was %s", target.champion, self._target.champion)
            self._target = target
        self._settle()

    def report(self) -> dict[str, Any]:
        """Return what is open, what is on the way, and what did not open."""
        with self._lock:
            return {
                "version": self._serving,
                "canary": asdict(self._target.canary) if self._target.canary else None,
                "open": {version: edition.held for version, edition in self._editions.items()},
                "opening": self._opening,
                "failed": {version: failure.why for version, failure in self._failed.items()},
            }

    def close(self) -> None:
        """Close all of them, whatever they draw."""
        with self._lock:
            self._closed = True
            shops = [edition.shop for edition in self._editions.values()]
        for shop in shops:
            shop.close()

    def _settle(self) -> None:
        """Bring what is open nearer to the target: at most one version is opened at a time, for the memory's sake."""
        with self._lock:
            if self._closed:
                return
            if self._target.champion in self._editions:
                self._serving = self._target.champion
            kept = {*self._target.versions, self._serving}
            done = [one for version, one in self._editions.items() if version not in kept and not one.held]
            for edition in done:
                del self._editions[edition.version]
            self._failed = {version: why for version, why in self._failed.items() if version in self._target.versions}
            missing = next((version for version in self._target.versions if self._may_open(version)), None)
            if missing is not None and self._opening is None:
                self._opening = missing
                threading.Thread(target=self._open, args=(missing,), name=f"open {missing}", daemon=True).start()
        for edition in done:
            logger.info("version %s has drawn its last picture", edition.version)
            threading.Thread(target=edition.shop.close, name=f"close {edition.version}", daemon=True).start()

    def _may_open(self, version: str) -> bool:
        failure = self._failed.get(version)
        return version not in self._editions and (failure is None or time.monotonic() - failure.at > self._retry_s)

    def _open(self, version: str) -> None:
        started = time.monotonic()
        try:
            shop = self._open_version(version)
        except Exception as error:
            logger.exception("version %s does not open; version %s goes on", version, self._serving)
            with self._lock:
                self._failed[version] = Failure(f"{type(error).__name__}: {error}")
                self._opening = None
        else:
            with self._lock:
                self._opening = None
                self._failed.pop(version, None)
                late = self._closed
                if not late:
                    self._editions[version] = Edition(version, shop)
            if late:
                shop.close()
                return
            logger.info("version %s is open after %.1f s", version, time.monotonic() - started)
        self._settle()
