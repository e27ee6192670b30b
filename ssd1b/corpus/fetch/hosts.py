"""How a host is treated: few requests at a time, a pause between them, and none for a while after many failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from ssd1b.corpus.fetch.failure import BREAKING, Failure
from ssd1b.corpus.reasons import Reason
from ssd1b.recipes.ingest import Fetch


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a host's last answers say about it; seconds are of any clock that only goes forward."""

    failures: int = 0
    """In a row."""
    closed_until_s: float = 0.0
    ready_s: float = 0.0
    """No request starts before: the pause since the last one, or what the host asked for."""
    last: Reason | None = None


def failed(standing: Standing, failure: Failure, now_s: float, limits: Fetch) -> Standing:
    """Return the standing after a request that failed.

    After dead_after failures in a row the host is closed for dead_for_s; then one more failure closes it again. A host
    that asks for a longer wait than the recipe's longest_pause_s is closed for just that wait.
    """
    if failure.reason not in BREAKING:
        return answered(standing)
    failures = standing.failures + 1
    asked_s = failure.retry_after_s or 0.0
    closed_until_s = standing.closed_until_s
    if failures >= limits.dead_after:
        closed_until_s = max(closed_until_s, now_s + limits.dead_for_s)
    if asked_s > limits.longest_pause_s:
        closed_until_s = max(closed_until_s, now_s + asked_s)
    ready_s = max(standing.ready_s, now_s + min(asked_s, limits.longest_pause_s))
    return Standing(failures=failures, closed_until_s=closed_until_s, ready_s=ready_s, last=failure.reason)


def answered(standing: Standing) -> Standing:
    """Return the standing after any answer that says that the host works, a 404 among them."""
    return Standing(ready_s=standing.ready_s)


def refusal(standing: Standing, now_s: float) -> Failure | None:
    """Return why a host is not to be asked now, or None."""
    if now_s >= standing.closed_until_s:
        return None
    detail = f"{standing.failures} failures in a row, the last {standing.last}"
    limited = standing.last is Reason.URL_RATE_LIMITED
    return Failure(reason=Reason.URL_RATE_LIMITED if limited else Reason.HOST_DEAD, detail=detail)


@dataclass
class Host:
    """One host's standing and its queue."""

    slots: asyncio.Semaphore
    standing: Standing = field(default_factory=Standing)

    @asynccontextmanager
    async def turn(self, gap_s: float) -> AsyncIterator[Failure | None]:
        """Wait for a slot and for the pause since the last request; yield why not to ask after all, or None."""
        loop = asyncio.get_running_loop()
        async with self.slots:
            while refusal(self.standing, loop.time()) is None and self.standing.ready_s > loop.time():
                await asyncio.sleep(self.standing.ready_s - loop.time())
            refused = refusal(self.standing, loop.time())
            if refused is None:
                self.standing = replace(self.standing, ready_s=loop.time() + gap_s)
            yield refused

    def note(self, outcome: object, limits: Fetch) -> None:
        """Take an outcome into the host's standing."""
        if isinstance(outcome, Failure):
            self.standing = failed(self.standing, outcome, asyncio.get_running_loop().time(), limits)
        else:
            self.standing = answered(self.standing)


class Hosts:
    """The hosts that one task has met."""

    def __init__(self, limits: Fetch) -> None:
        self.limits = limits
        self.known: dict[str, Host] = {}

    def of(self, name: str) -> Host:
        if name not in self.known:
            self.known[name] = Host(asyncio.Semaphore(self.limits.per_host))
        return self.known[name]
