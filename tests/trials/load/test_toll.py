"""What a fault cost is counted rightly: planted charges are found where they belong, and the callers tell the truth."""

import sqlite3
import threading
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Response
from hypothesis import given
from hypothesis import strategies as st
from test_driver import listening

from serve.accounts.database import Database
from serve.accounts.ledger import Ledger
from serve.accounts.office import Office, Terms
from ssd1b.trials.load import callers
from ssd1b.trials.load.callers import Caller, calling
from ssd1b.trials.load.contestants import free_port
from ssd1b.trials.load.toll import Call, Charged, Outcome, charges, toll, unpaid
from ssd1b.trials.load.trace import Mix, at_once, endless
from ssd1b.trials.load.wire import Wanted, answer

MIX = Mix(prompts=("a red apple",))


def call(account: str, began: float, outcome: Outcome = "answered", errors: tuple[str, ...] = ()) -> Call:
    return Call(account=account, seed=int(began), began=began, ended=began + 0.9, errors=errors, outcome=outcome)


def held(account: str, at: float) -> Charged:
    return Charged(account=account, held=at)


def test_planted_charges_are_found() -> None:
    calls = [call("ann", 1), call("ann", 2, errors=("503",)), call("bob", 1, "failed", ("503", "503")),
             call("bob", 2, "lost"), call("bob", 3)]  # fmt: skip
    fair = [held("ann", 1.1), held("ann", 2.5), held("bob", 3.1)]
    told = toll(calls, fair)
    assert (told.sent, told.answered, told.failed, told.lost, told.errors) == (5, 3, 1, 1, 3)
    assert (told.charged_twice, told.charged_for_nothing, unpaid(calls, fair)) == (0, 0, 0)
    twice = toll(calls, [*fair, held("ann", 2.1)])
    assert (twice.charged_twice, twice.charged_for_nothing) == (1, 0)
    nothing = toll(calls, [*fair, held("bob", 1.5), held("bob", 2.5), held("bob", 9)])
    assert (nothing.charged_twice, nothing.charged_for_nothing) == (0, 3)
    assert unpaid(calls, fair[1:]) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.floats(0, 0.9)), max_size=30))
def test_no_charge_is_overlooked(planted: list[tuple[str, int, float]]) -> None:
    outcomes: tuple[Outcome, ...] = ("answered", "failed", "lost")
    calls = [call(account, began, outcomes[began % 3]) for account in "ab" for began in range(0, 8)]
    found = [held(account, began + offset) for account, began, offset in planted]
    told = toll(calls, found)
    paid_once = told.answered - unpaid(calls, found)
    assert told.charged_twice + told.charged_for_nothing + paid_once == len(found)


def test_charges_are_read_from_a_real_ledger(tmp_path: Path) -> None:
    """Captured ones only: neither what is held nor what was given back."""
    clock = count(100)
    file = tmp_path / "accounts.db"
    database = Database(f"sqlite:///{file}")
    ledger, office = Ledger(lambda: float(next(clock))), Office(lambda: 0.0)
    database.run(lambda connection: office.add(connection, "ann", 1000, Terms()))
    for request in ("one", "two", "three"):
        database.run(lambda connection, request=request: ledger.hold(connection, 1, request, 10, 1))
    database.run(lambda connection: ledger.capture(connection, 1, "one", 10, 1))
    database.run(lambda connection: ledger.capture(connection, 1, "one", 10, 1))
    database.run(lambda connection: ledger.release(connection, 1, "two"))
    assert charges(file, since=0) == [Charged(account="ann", held=100.0)]
    assert charges(file, since=101) == []
    database.close()
    with pytest.raises(sqlite3.OperationalError):
        charges(tmp_path / "none.db", since=0)


def fragile(fail: int, status: int) -> FastAPI:
    """A server that fails every picture's first requests."""
    app, seen = FastAPI(), dict[int, int]()

    @app.post("/v1/images/generations", response_model=None)
    def generations(wanted: Wanted) -> dict[str, object] | Response:
        seen[wanted.seed] = seen.get(wanted.seed, 0) + 1
        if seen[wanted.seed] <= fail:
            return Response("not now", status)
        return answer(np.full((8, 8, 3), wanted.seed % 256, np.uint8))

    return app


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "FIRST_PAUSE_S", 0.01)


def caller(retries: int = 2, patience_s: float = 5.0) -> Caller:
    return Caller(account="ann", key="sk-1", retries=retries, patience_s=patience_s)


@pytest.mark.parametrize(
    ("fail", "status", "outcome", "errors"),
    [(0, 503, "answered", 0), (2, 503, "answered", 2), (3, 503, "failed", 3), (1, 400, "failed", 1)],
)
def test_a_caller_asks_again_as_sdks_do(fail: int, status: int, outcome: Outcome, errors: int) -> None:
    with listening(fragile(fail, status)) as url, httpx.Client(base_url=url) as http:
        made, drawn_HW3 = caller().call(http, at_once(MIX, 1, seed=0)[0])
    assert (made.outcome, len(made.errors)) == (outcome, errors)
    assert (drawn_HW3 is not None) == (outcome == "answered")


def test_a_caller_tells_a_dead_server_from_a_silent_one() -> None:
    ask = at_once(MIX, 1, seed=0)[0]
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port()}") as http:
        dead, _ = caller(retries=1).call(http, ask)
    assert (dead.outcome, dead.errors) == ("failed", ("ConnectError", "ConnectError"))
    app, gate = FastAPI(), threading.Event()
    app.post("/v1/images/generations")(lambda: gate.wait())
    with listening(app) as url, httpx.Client(base_url=url) as http:
        silent, _ = caller(patience_s=0.2).call(http, ask)
        gate.set()
    assert (silent.outcome, silent.errors) == ("lost", ())


def test_callers_go_on_until_they_are_told_to_stop() -> None:
    named = [Caller(account=name, key="sk", retries=0, patience_s=5.0) for name in "abc"]
    several = {one: endless(MIX, i) for i, one in enumerate(named)}
    with listening(fragile(0, 503)) as url, calling(url, several) as load:
        while load.since(0.0) != {"a", "b", "c"}:
            threading.Event().wait(0.01)
    assert all(made.outcome == "answered" for made, _ in load.calls)
    assert set(load.pictures) == {made.seed for made, _ in load.calls}
    assert len({made.seed for made, _ in load.calls}) == len(load.calls)
    assert not load.since(max(made.began for made, _ in load.calls))
