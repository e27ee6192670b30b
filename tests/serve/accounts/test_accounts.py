"""The accounts as the front sees them: keys, charges, callers who leave, a database that is away."""

import asyncio
import pickle
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve.accounts import Accounts, Caller, NoAccounts, open_accounts
from serve.accounts import accounts as module
from serve.accounts import database as databases
from serve.accounts.database import Database
from serve.accounts.ledger import faults
from serve.accounts.office import Office, Terms
from serve.accounts.refusals import too_fast
from serve.errors import RequestError
from serve.request import GenerationRequest
from ssd1b.sizes import Size

SIZE = Size(1024, 1024)
REQUEST = GenerationRequest(prompt="an apple", seed=1, steps=20)
"""Costs one credit."""


class Shop:
    """Accounts with amy in them, and her key; `now` is their clock."""

    def __init__(self, url: str, credits: int = 10, **terms: Any) -> None:
        self.now = 1_000_000.0
        self.url, self.database = url, Database(url)
        self.accounts = Accounts(self.database, clock=lambda: self.now)
        self.office = Office(lambda: self.now)
        self.do(self.office.add, "amy", credits * 1000, Terms(**terms))
        self.key = self.do(self.office.key, "amy", 1.0)["key"]

    def do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self.database.run(lambda connection: call(connection, *arguments))

    def amy(self) -> dict[str, Any]:
        (amy,) = self.do(self.office.everyone)
        assert self.do(lambda connection: list(faults(connection))) == []
        return dict(amy)

    def captured(self) -> int:
        return int(self.do(self.office.usage, "amy", 0.0)["requests"])

    async def caller(self) -> Caller:
        return await self.accounts.identify(self.key)


@pytest.fixture
def shop(url: str) -> Iterator[Shop]:
    shop = Shop(url)
    yield shop
    shop.accounts.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Shop]:
    """On SQLite, for what does not depend on the database."""
    shop = Shop(f"sqlite:///{tmp_path / 'small.db'}", images_per_minute=4, requests_per_minute=3)
    yield shop
    shop.accounts.close()


def refused(accounts: Accounts, key: str | None) -> RequestError:
    with pytest.raises(RequestError) as info:
        asyncio.run(accounts.identify(key))
    return info.value


def test_a_key_tells_who_calls(url: str) -> None:
    shop = Shop(url, priority="batch", admin=True)
    caller = asyncio.run(shop.caller())
    assert (caller.name, caller.admin, caller.priority, caller.account) == ("amy", True, "batch", 1)
    assert shop.key.startswith(f"sk-{caller.key}-")
    shop.accounts.close()


def test_keys_that_open_nothing(shop: Shop) -> None:
    kept = shop.key.rpartition("-")[0]
    for key in ("", None):
        assert refused(shop.accounts, key).code == "missing_api_key"
    wrong = [
        refused(shop.accounts, key) for key in ("sk-", "secret", f"{kept}-{'x' * 32}", f"sk-{'y' * 10}-{'x' * 32}")
    ]
    shop.do(shop.office.revoke, shop.key)
    wrong.append(refused(shop.accounts, shop.key))
    another = shop.do(shop.office.key, "amy", 1.0)["key"]
    assert asyncio.run(shop.accounts.identify(another)).name == "amy"
    shop.now += 86_400
    wrong.append(refused(shop.accounts, another))
    assert {(error.status, error.code) for error in wrong} == {(401, "invalid_api_key")}
    assert not any("x" * 32 in str(error) or shop.key in str(error) for error in wrong)


def test_the_key_is_nowhere_in_the_database(small: Shop, tmp_path: Path) -> None:
    small.accounts.close()
    secret = small.key.rpartition("-")[2].encode()
    files = list(tmp_path.iterdir())
    assert any(b"amy" in file.read_bytes() for file in files)
    assert not any(secret in file.read_bytes() for file in files)


def test_a_charge_that_ends_well(shop: Shop) -> None:
    async def scene() -> None:
        caller = await shop.caller()
        async with shop.accounts.charge(caller, "r1", replace(REQUEST, n=3), SIZE) as charge:
            assert (charge.price, charge.credits_left, charge.limit) == (3.0, 7.0, None)
        async with shop.accounts.charge(caller, "r1", replace(REQUEST, n=3), SIZE) as charge:
            assert charge.credits_left == 7.0

    asyncio.run(scene())
    assert shop.amy()["credits"] == 7.0
    usage = shop.do(shop.office.usage, "amy", shop.now)
    assert (usage["requests"], usage["pictures"], usage["credits"]) == (1, 3, 3.0)
    assert usage["days"] == [{"day": "1970-01-12", "requests": 1, "pictures": 3, "credits": 3.0}]


def test_a_charge_whose_body_raises_costs_nothing(shop: Shop) -> None:
    async def scene() -> None:
        async with shop.accounts.charge(await shop.caller(), "r1", REQUEST, SIZE):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scene())
    assert (shop.amy()["credits"], shop.captured()) == (10.0, 0)


def test_headers_of_the_limits(small: Shop) -> None:
    async def scene() -> None:
        caller = await small.caller()
        async with small.accounts.charge(caller, "r1", replace(REQUEST, n=2), SIZE) as charge:
            assert (charge.limit, charge.remaining, charge.reset_s) == (3, 2, 60.0)
            assert (charge.images.limit, charge.images.remaining) == (4, 2)
        with pytest.raises(RequestError, match="images per minute") as info:
            async with small.accounts.charge(caller, "r2", replace(REQUEST, n=3), SIZE):
                raise AssertionError("not admitted")
        assert info.value.retry_after_s == 60.0  # type: ignore[attr-defined]

    asyncio.run(scene())


def test_the_wait_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(too_fast("amy", "images", 4, 2.5)))
    assert (error.status, error.retry_after_s) == (429, 2.5)


def test_a_client_who_leaves_before_the_pictures_pays_nothing(shop: Shop) -> None:
    async def scene() -> None:
        caller = await shop.caller()
        inside = asyncio.Event()

        async def body() -> None:
            async with shop.accounts.charge(caller, "r1", REQUEST, SIZE):
                inside.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(body())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert (shop.amy()["credits"], shop.captured()) == (10.0, 0)


def test_a_stream_that_is_closed_on_the_way_pays_nothing(small: Shop) -> None:
    """As the front draws: a generator whose body is charged, closed by a client who hangs up."""

    async def drawing(caller: Caller, request_id: str) -> AsyncGenerator[str, None]:
        async with small.accounts.charge(caller, request_id, REQUEST, SIZE):
            yield "on the way"
        yield "the picture"

    async def scene() -> None:
        caller = await small.caller()
        closed = drawing(caller, "closed")
        assert await anext(closed) == "on the way"
        await closed.aclose()
        assert [event async for event in drawing(caller, "whole")] == ["on the way", "the picture"]
        late = drawing(caller, "late")
        assert [await anext(late), await anext(late)] == ["on the way", "the picture"]
        await late.aclose()

    asyncio.run(scene())
    assert (small.amy()["credits"], small.captured()) == (8.0, 2)


@pytest.mark.parametrize(
    ("verb", "credits", "captured"), [("hold", 10.0, 0), ("release", 10.0, 0), ("capture", 9.0, 1)]
)
def test_a_client_who_leaves_in_the_middle_of_a_transaction(
    small: Shop, monkeypatch: pytest.MonkeyPatch, verb: str, credits: float, captured: int
) -> None:
    """The transaction ends all the same: a hold is released after it, a release or a capture stands."""
    reached, go = threading.Event(), threading.Event()
    real = getattr(small.accounts._ledger, verb)

    def slow(*arguments: Any) -> Any:
        reached.set()
        assert go.wait(20)
        return real(*arguments)

    monkeypatch.setattr(small.accounts._ledger, verb, slow)

    async def scene() -> None:
        async def body() -> None:
            async with small.accounts.charge(await small.caller(), "r1", REQUEST, SIZE):
                if verb == "release":
                    raise ZeroDivisionError

        task = asyncio.create_task(body())
        await asyncio.to_thread(reached.wait, 20)
        for _ in range(3):  # as a cancel scope does: again at every wait
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    asyncio.run(scene())
    small.accounts.close()  # waits for what runs
    assert (small.amy()["credits"], small.captured()) == (credits, captured)


def test_the_accounts_travel_to_another_process(small: Shop) -> None:
    key = small.do(small.office.key, "amy", None)["key"]
    copy = pickle.loads(pickle.dumps(Accounts(small.database)))
    assert asyncio.run(copy.identify(key)).name == "amy"
    copy.close()


def test_a_locked_database_refuses_and_goes_on(small: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite away: another process holds the file for longer than we are patient."""
    monkeypatch.setattr(databases, "PATIENCE_S", 0.1)
    caller = asyncio.run(small.caller())
    small.accounts.close()
    other = sqlite3.connect(tmp_path / "small.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert away(small, caller).status == 503
    other.execute("ROLLBACK")
    other.close()
    asyncio.run(drawn(small, caller, "r2"))
    assert small.captured() == 1


async def drawn(shop: Shop, caller: Caller, request_id: str) -> None:
    async with shop.accounts.charge(caller, request_id, REQUEST, SIZE):
        pass


def away(shop: Shop, caller: Caller) -> RequestError:
    with pytest.raises(RequestError, match="cannot be reached") as info:
        asyncio.run(drawn(shop, caller, "r1"))
    return info.value


def test_a_server_that_is_away_refuses_and_comes_back(postgres: Any, postgres_url: str) -> None:
    shop = Shop(postgres_url)
    caller = asyncio.run(shop.caller())
    postgres.stop()
    try:
        assert away(shop, caller).status == 503
        assert refused(shop.accounts, shop.key).status == 503
    finally:
        postgres.ensure_postgres_running()
    asyncio.run(drawn(shop, caller, "r1"))
    assert (shop.amy()["credits"], shop.captured()) == (9.0, 1)
    shop.accounts.close()


def test_a_server_that_stops_while_drawing_gives_no_pictures_away(postgres: Any, postgres_url: str) -> None:
    shop = Shop(postgres_url)

    async def scene(ends_well: bool) -> None:
        async with shop.accounts.charge(await shop.caller(), f"r{ends_well}", REQUEST, SIZE):
            await asyncio.to_thread(postgres.stop)
            assert ends_well, "the body's own error"

    for ends_well, says in ((True, "cannot be reached"), (False, "the body's own error")):
        with pytest.raises((RequestError, AssertionError), match=says):
            asyncio.run(scene(ends_well))
        postgres.ensure_postgres_running()
    assert shop.amy()["credits"] == 8.0, "both are still held"
    shop.now += 1000
    assert (shop.amy()["credits"], shop.captured()) == (10.0, 0)
    shop.accounts.close()


def test_a_server_that_hangs_is_not_waited_for(
    postgres: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(postgres_url)
    caller = asyncio.run(shop.caller())
    monkeypatch.setattr(module, "ANSWER_S", 0.5)
    server = psutil.Process(postgres.get_pid())
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        assert away(shop, caller).status == 503
        assert refused(shop.accounts, shop.key).status == 503
    finally:
        for process in processes:
            process.resume()
    asyncio.run(drawn(shop, caller, "r2"))
    assert (shop.amy()["credits"], shop.captured()) == (9.0, 1), "the hold that came too late was released"
    shop.accounts.close()


def test_a_restart_between_two_calls_is_not_noticed(postgres: Any, postgres_url: str) -> None:
    shop = Shop(postgres_url)

    async def scene() -> None:
        async with shop.accounts.charge(await shop.caller(), "r1", REQUEST, SIZE):
            await asyncio.to_thread(postgres.stop)
            await asyncio.to_thread(postgres.ensure_postgres_running)

    asyncio.run(scene())
    assert shop.captured() == 1
    shop.accounts.close()


def test_nothing_configured_is_free(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSD1B_ACCOUNTS", raising=False)
    nobody = open_accounts()
    assert isinstance(nobody, NoAccounts)

    async def scene() -> None:
        caller = await nobody.identify(None)
        async with nobody.charge(caller, "r1", REQUEST, SIZE) as charge:
            assert (charge.price, charge.credits_left, charge.limit) == (0.0, None, None)

    asyncio.run(scene())
    assert list(home.iterdir()) == []


def test_once_there_is_a_database_a_key_is_needed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSD1B_ACCOUNTS", raising=False)
    Shop(f"sqlite:///{home / 'accounts.db'}").accounts.close()
    accounts = open_accounts()
    assert isinstance(accounts, Accounts)
    assert refused(accounts, None).status == 401
    accounts.close()
    monkeypatch.setenv("SSD1B_ACCOUNTS", "postgresql://amy:secret@db/accounts")
    assert str(open_accounts()) == "postgresql+psycopg://amy:***@db/accounts"


@pytest.mark.parametrize("url", ["accounts.db", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_name_no_database(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite"):
        open_accounts(url)
