"""SIGKILL between any two statements of a charge, and several processes at one account: nothing lost or doubled."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from serve.accounts.accounts import Accounts, Caller
from serve.accounts.database import Database
from serve.accounts.ledger import Ledger, faults
from serve.accounts.office import Office, Terms
from serve.errors import RequestError
from serve.request import GenerationRequest
from ssd1b.sizes import Size

FORK = multiprocessing.get_context("fork")
AMY = Caller(name="amy", account=1)
SIZE = Size(1024, 1024)
REQUEST = GenerationRequest(prompt="an apple", seed=1, steps=20)
"""Costs one credit."""


def opened(url: str, mills: int) -> Database:
    database = Database(url)
    database.run(lambda connection: Office().add(connection, "amy", mills, Terms()))
    database.close()  # what is open does not go through a fork
    return database


def balance_of(database: Database, later: bool = False) -> int:
    """Look as another process would, now or after every hold has expired; the ledger agrees with itself."""
    ledger = Ledger((lambda: 1e10) if later else Ledger()._clock)
    assert database.run(lambda connection: list(faults(connection))) == []
    balance = database.run(lambda connection: ledger.book(connection, 1).balance)
    assert database.run(lambda connection: list(faults(connection))) == []
    database.close()
    return balance


def captures(database: Database) -> int:
    usage = database.run(lambda connection: Office().usage(connection, "amy", 0.0))
    database.close()
    assert usage["credits"] == usage["requests"]
    return int(usage["requests"])


def in_child(work: Callable[..., None], *arguments: Any) -> Any:
    child = FORK.Process(target=work, args=arguments)
    child.start()
    return child


def charged(accounts: Accounts, request_id: str, ends_well: bool = True) -> None:
    async def scene() -> None:
        async with accounts.charge(AMY, request_id, REQUEST, SIZE):
            if not ends_well:
                raise RuntimeError("the drawing failed")

    asyncio.run(scene())


def killed_at(database: Database, point: int, ends_well: bool) -> None:
    """Charge a request in this process, which dies before its statement, commit or rollback number `point`."""
    engine = database._open()
    passed = 0

    def step(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
        event.listen(engine, name, step)
    try:
        charged(Accounts(database), "the request", ends_well)
    except RuntimeError:
        assert not ends_well
    os._exit(0)


def kill_everywhere(url: str, ends_well: bool) -> tuple[int, set[tuple[int, int]]]:
    """Kill at every point in turn until one is beyond the end; return how many there were and what was found after."""
    mills, found = 1_000_000, set()
    database = opened(url, mills)
    for point in range(1, 200):
        before, paid = balance_of(database), captures(database)
        child = in_child(killed_at, database, point, ends_well)
        child.join()
        now, after = balance_of(database), captures(database)
        assert child.exitcode in (0, -signal.SIGKILL)
        found.add((now - before, after - paid))
        if child.exitcode == 0:
            return point - 1, found
        # The id is free for another round only if this one ends unpaid; a request that is issued again counts once.
        request = f"round {point}"
        rename(database, request)
        charged(Accounts(database), request)
        database.close()
        assert captures(database) == paid + 1
        assert balance_of(database) == before - 1000
        assert balance_of(database, later=True) == before - 1000
    raise AssertionError("the charge never ended")


def rename(database: Database, request: str) -> None:
    """Give what the dead process left under "the request" a name of its own round."""
    from serve.accounts.tables import entries, open_holds

    for table in (entries, open_holds):
        change = table.update().where(table.c.request == "the request").values(request=request)
        database.run(lambda connection, change=change: connection.execute(change))
    database.close()


def test_killed_while_charging(url: str) -> None:
    points, found = kill_everywhere(url, ends_well=True)
    assert points >= 20, "so many times a process really died"
    assert found == {(0, 0), (-1000, 0), (-1000, 1)}, "as it was, held, or paid; nothing between"


def test_killed_while_releasing(url: str) -> None:
    points, found = kill_everywhere(url, ends_well=False)
    assert points >= 20
    assert found == {(0, 0), (-1000, 0)}


def spend(url: str, name: str, times: int, together: Any, out: Any) -> None:
    accounts, drawn = Accounts(Database(url)), 0
    together.wait()
    for i in range(times):
        try:
            charged(accounts, f"{name} {i}")
            drawn += 1
        except RequestError as error:
            if error.code != "insufficient_credits":
                raise
    out.put(drawn)
    accounts.close()


def test_processes_do_not_spend_the_same_credit(url: str) -> None:
    database = opened(url, 60_000)
    out = FORK.Queue()
    together = FORK.Barrier(4)
    children = [in_child(spend, url, f"process {i}", 25, together, out) for i in range(4)]
    drawn = [out.get(timeout=50) for _ in children]
    for child in children:
        child.join()
    assert sum(drawn) == 60, drawn
    assert sum(count > 0 for count in drawn) >= 2, "more than one at once"
    assert captures(database) == 60
    assert balance_of(database) == 0


def spend_one(url: str, together: Any, out: Any) -> None:
    accounts = Accounts(Database(url))
    together.wait()
    charged(accounts, "the same")
    out.put(None)
    accounts.close()


def test_one_request_in_several_processes_is_charged_once(url: str) -> None:
    database = opened(url, 10_000)
    out = FORK.Queue()
    together = FORK.Barrier(4)
    children = [in_child(spend_one, url, together, out) for _ in range(4)]
    for _ in children:
        out.get(timeout=50)
    for child in children:
        child.join()
    assert captures(database) == 1
    assert balance_of(database) == 9000


def look(url: str, together: Any) -> None:
    together.wait()
    assert Database(url).run(lambda connection: list(faults(connection))) == []


def test_processes_open_an_empty_database_at_once(url: str) -> None:
    together = FORK.Barrier(4)
    children = [in_child(look, url, together) for _ in range(4)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
