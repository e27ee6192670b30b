"""The accounts as the front sees them: who calls, and a charge around what they asked for.

    caller = await accounts.identify(key)
    async with accounts.charge(caller, request_id, request, size) as charge:
        ...                                  # draw

The price is held before the body. A body that ends well is captured, once, also if the client went away meanwhile: the
pictures were made. One that raises or is cancelled, as when the client leaves before the pictures are made, is released
and costs nothing. What blocks runs on threads. While the database is away, every request is refused with 503: at the
start, before anything is drawn; at the end, instead of giving the pictures away.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from serve.accounts.database import AwayError, Database
from serve.accounts.keys import NOBODY, KeptKey, prefix_of
from serve.accounts.ledger import Ledger
from serve.accounts.limits import UNLIMITED, Room
from serve.accounts.prices import Prices, credits_of
from serve.accounts.refusals import no_key, unreachable, wrong_key
from serve.accounts.tables import accounts, keys
from serve.request import GenerationRequest, Priority
from ssd1b.home import home
from ssd1b.sizes import Size

logger = logging.getLogger("ray.serve")

VARIABLE = "SSD1B_ACCOUNTS"
"""Names the database's url."""
THREADS = 8
"""Database calls at once. SQLite has one writer: its calls stand in line, faster than waiting for its lock."""
ANSWER_S = 15.0
"""A database that takes longer before the drawing, hung or overrun, is taken for one that is away."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose key it is."""

    name: str
    admin: bool = False
    """May look at and do what concerns all callers."""
    priority: Priority = "interactive"
    """What the account's requests get at most: those of a batch account wait while there is interactive work."""
    account: int = 0
    key: str = ""
    """The key's public prefix, for logs."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What a request costs, and what is left after it; None where nothing is counted."""

    price: float = 0.0
    """Credits."""
    credits_left: float | None = None
    requests: Room = UNLIMITED
    images: Room = UNLIMITED

    @property
    def limit(self) -> int | None:
        """Requests per minute, as x-ratelimit-limit-requests has it; `images` tells the same of pictures."""
        return self.requests.limit

    @property
    def remaining(self) -> int | None:
        return self.requests.remaining

    @property
    def reset_s(self) -> float | None:
        return self.requests.reset_s


class NoAccounts:
    """No keys are configured: everybody is one caller who owes nothing. Only for an endpoint on loopback."""

    async def identify(self, key: str | None) -> Caller:  # noqa: ARG002
        """Whoever reaches loopback is a user of this machine, so may do all there is to do."""
        return Caller(name="local", admin=True)

    @asynccontextmanager
    async def charge(
        self, caller: Caller, request_id: str, request: GenerationRequest, size: Size  # noqa: ARG002
    ) -> AsyncIterator[Charge]:  # fmt: skip
        yield Charge()

    def close(self) -> None:
        """Nothing is open."""


class Accounts:
    """Accounts in a database; opened on first use, in whichever process that is."""

    def __init__(
        self, database: Database, prices: Prices | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database, self._prices, self._clock = database, prices or Prices(), clock
        self._ledger = Ledger(clock)
        self._threads: ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Accounts, (self._database, self._prices, self._clock)

    def __str__(self) -> str:
        return str(self._database)

    async def identify(self, key: str | None) -> Caller:
        """Return whose key it is; looked up each time, so that a revoked one is refused at once.

        Raises:
            RequestError: 401, no key or one that is unknown, revoked or expired; 503, the database is away.
        """
        if not key:
            raise no_key()
        try:
            return await self._soon(self._pool().submit(self._identify, key))
        except TimeoutError as error:
            raise unreachable() from error

    def _identify(self, key: str) -> Caller:
        prefix = prefix_of(key)
        found = self._run(partial(find_key, prefix=prefix), writes=False) if prefix else None
        kept = KeptKey(found.prefix, found.salt, found.digest) if found else NOBODY
        fits = kept.opens_with(key)
        if not (found and fits) or found.revoked_at is not None:
            raise wrong_key(prefix)
        if found.expires_at is not None and found.expires_at <= self._clock():
            raise wrong_key(prefix)
        return Caller(
            name=found.name, admin=found.admin, priority=found.priority, account=found.id, key=found.prefix
        )  # fmt: skip

    @asynccontextmanager
    async def charge(
        self, caller: Caller, request_id: str, request: GenerationRequest, size: Size
    ) -> AsyncIterator[Charge]:
        """Hold the price around a body; the module says what becomes of it.

        The same request id is charged once, however often and by whichever process it is issued. `request` tells
        pictures and steps, `size` what will be drawn.

        Raises:
            RequestError: 402 too few credits, 429 beyond the limits per minute, 503 the database is away.
        """
        price = self._prices.of(request.n, request.steps, size)
        note = f"{request.n} x {size}, {request.steps} steps"
        order: tuple[Any, ...] = (caller.account, request_id, price, request.n, note)
        release = partial(self._release, caller.account, request_id)
        holding = self._pool().submit(self._book, self._ledger.hold, *order)
        try:
            held = await self._soon(holding)
        except (asyncio.CancelledError, TimeoutError) as error:
            self._pool().submit(
                lambda: (wait([holding]), release())
            )  # behind the hold in the queue: it cannot block it
            if isinstance(error, TimeoutError):
                raise unreachable() from error
            raise
        charge = Charge(
            price=credits_of(price), credits_left=credits_of(held.balance), requests=held.requests, images=held.images
        )
        try:
            yield charge
        except BaseException:
            await self._call(release)
            raise
        await self._call(self._book, self._ledger.capture, *order)

    def _book(self, entry: Callable[..., Result], *order: Any) -> Result:
        return self._run(lambda connection: entry(connection, *order))

    def _release(self, account: int, request_id: str) -> None:
        try:
            self._database.run(lambda connection: self._ledger.release(connection, account, request_id))
        except AwayError as error:  # the body's own error is worth more to the caller
            logger.warning("%s: its hold stays until it expires: %s", request_id, error)

    def _run(self, work: Callable[[Connection], Result], *, writes: bool = True) -> Result:
        try:
            return self._database.run(work, writes=writes)
        except AwayError as error:
            raise unreachable() from error

    async def _soon(self, answer: Future[Result]) -> Result:
        """Wait for a thread, but not for ever. Whether one waits or not, it goes on."""
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(answer)), ANSWER_S)

    async def _call(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run on a thread, to the end: a caller who is cancelled leaves, the transaction does not.

        Without a limit of time: a capture that is under way may have arrived, and cannot be taken back.
        """
        return await asyncio.shield(asyncio.wrap_future(self._pool().submit(work, *arguments)))

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1 if self._database.embedded else THREADS, "accounts")
        return self._threads

    def close(self) -> None:
        """Finish what runs and give the connections back."""
        if self._threads:
            self._threads.shutdown()
            self._threads = None
        self._database.close()


def find_key(connection: Connection, prefix: str) -> Any:
    wanted = (*keys.c, accounts.c.id, accounts.c.name, accounts.c.admin, accounts.c.priority)
    return connection.execute(select(*wanted).join(accounts).where(keys.c.prefix == prefix)).one_or_none()


def open_accounts(url: str | None = None, prices: Prices | None = None) -> Accounts | NoAccounts:
    """Return the accounts in the database that `url` names, else $SSD1B_ACCOUNTS.

    Where neither names one, they are in accounts.db under the storage root if `python -m serve.accounts add` made it,
    and otherwise there are none. Once there is a database, nobody is let in without a key, even if it holds no key yet.

    Raises:
        ValueError: a url that is none.
    """
    url = url or os.environ.get(VARIABLE)
    if not url and not default_file().exists():
        return NoAccounts()
    return Accounts(Database(url or f"sqlite:///{default_file()}"), prices)


def default_file() -> Path:
    return home() / "accounts.db"
