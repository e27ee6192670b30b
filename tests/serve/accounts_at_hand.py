"""Accounts in memory: one caller with a few credits, a credit a request. The real ones are in tests/serve/accounts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.accounts import Caller, Charge
from serve.accounts.limits import Room
from serve.accounts.refusals import no_key, too_fast, too_poor, wrong_key
from serve.request import GenerationRequest
from ssd1b.sizes import Size

CREDIT = 1000
"""In the ledger's unit."""


class FewCredits:
    """Stands where Accounts does. Keys: sk-good, and sk-other for a second caller. Tells what became of each charge."""

    def __init__(self, credits: int, requests: int = 10) -> None:
        self.credits, self.requests = credits, requests
        self.captured: list[str] = []
        self.released: list[str] = []

    async def identify(self, key: str | None) -> Caller:
        if key is None:
            raise no_key()
        if key not in ("sk-good", "sk-other"):
            raise wrong_key(None)
        return Caller(name=key.removeprefix("sk-"), priority="batch" if key == "sk-other" else "interactive")

    @asynccontextmanager
    async def charge(
        self, caller: Caller, request_id: str, request: GenerationRequest, size: Size
    ) -> AsyncIterator[Charge]:
        assert size == request.size, "the price is of what will be drawn"
        if self.requests < 1:
            raise too_fast(caller.name, "requests", 10, 12.3)
        if self.credits < 1:
            raise too_poor(caller.name, CREDIT, self.credits * CREDIT)
        self.credits -= 1
        self.requests -= 1
        try:
            yield Charge(price=1.0, credits_left=self.credits, requests=Room(10, self.requests, 6.5))
        except BaseException:
            self.credits += 1
            self.released.append(request_id)
            raise
        self.captured.append(request_id)

    def close(self) -> None:
        """Nothing is open."""
