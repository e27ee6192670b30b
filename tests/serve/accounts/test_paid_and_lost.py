"""A front that is killed with a paid answer in its hands: whoever asks again under the same key pays no more."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from toy_front import ToyEngine

from serve.accounts.accounts import Accounts
from serve.accounts.database import Database
from serve.accounts.ledger import Ledger, faults
from serve.accounts.office import Office, Terms
from serve.front import desk
from serve.ingress import routes

FORK = multiprocessing.get_context("fork")
BODY = {"prompt": "x", "num_inference_steps": 20}
PRICE = 16
"""Mills: 128x128, 20 steps."""


def front(url: str, storage: Path) -> FastAPI:
    return routes(ToyEngine(), "toy", accounts=Accounts(Database(url)), storage=storage)


def killed(url: str, storage: Path, headers: dict[str, str], paid: bool) -> None:
    """Ask once in this process, which dies when the pictures are paid, or when they are drawn and not paid yet."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if paid:
        desk.delivered = die  # type: ignore[assignment]
    else:
        Ledger.capture = die  # type: ignore[method-assign, assignment]
    with TestClient(front(url, storage)) as http:
        http.post("/v1/images/generations", json=BODY, headers=headers)


@pytest.mark.parametrize("paid", [True, False])
def test_an_answer_that_is_lost_with_its_front(url: str, tmp_path: Path, paid: bool) -> None:
    database, storage = Database(url), tmp_path / "predictions.db"
    database.run(lambda connection: Office().add(connection, "amy", 10 * PRICE, Terms()))
    key = database.run(lambda connection: Office().key(connection, "amy", None))["key"]
    database.close()
    headers = {"x-api-key": key, "idempotency-key": "order-17"}
    child = FORK.Process(target=killed, args=(url, storage, headers, paid))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    ledger = Ledger()
    assert database.run(lambda connection: ledger.book(connection, 1).balance) == 9 * PRICE
    used = database.run(lambda connection: Office().usage(connection, "amy", 0.0))
    assert used["requests"] == (1 if paid else 0)
    with TestClient(front(url, storage)) as http:
        answers = [http.post("/v1/images/generations", json=BODY, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json()["data"] == answers[1].json()["data"]
    used = database.run(lambda connection: Office().usage(connection, "amy", 0.0))
    assert (used["requests"], used["credits"]) == (1, PRICE / 1000)
    later = Ledger(lambda: 1e10)  # no hold is left that would run out
    assert database.run(lambda connection: later.book(connection, 1).balance) == 9 * PRICE
    assert database.run(lambda connection: list(faults(connection))) == []
    database.close()
