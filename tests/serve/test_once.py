"""Idempotency-Key: sent again, the same pictures, paid once (accounts/test_paid_and_lost.py kills fronts)."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from accounts_at_hand import FewCredits
from fastapi import FastAPI
from fastapi.testclient import TestClient
from toy_front import ToyEngine, eventually, listening

from serve.accounts import Accounts
from serve.accounts.database import Database
from serve.accounts.ledger import faults
from serve.accounts.office import Office, Terms
from serve.front import predictions
from serve.ingress import routes

IMAGES = "/v1/images/generations"
DRAWS = [
    (IMAGES, {"prompt": "x"}),
    ("/v1/ssd-1b", {"prompt": "x", "base64": True, "scheduler": "Euler"}),
    ("/sdapi/v1/txt2img", {"prompt": "x"}),
    ("/", {"inputs": "x"}),
    ("/models/toy", {"inputs": "x"}),
]


class Bank:
    """A real ledger with one account, amy."""

    def __init__(self, folder: Path, terms: Terms) -> None:
        self.database = Database(f"sqlite:///{folder / 'accounts.db'}")
        self.database.run(lambda connection: Office().add(connection, "amy", 10**6, terms))
        self.key = str(self.database.run(lambda connection: Office().key(connection, "amy", None))["key"])

    @property
    def requests(self) -> int:
        """How many were charged; the ledger agrees with itself."""
        assert self.database.run(lambda connection: list(faults(connection))) == []
        return int(self.database.run(lambda connection: Office().usage(connection, "amy", 0.0))["requests"])

    def headers(self, idempotency_key: str) -> dict[str, str]:
        return {"x-api-key": self.key, "idempotency-key": idempotency_key}

    def app(self, engine: ToyEngine, storage: Path | None = None) -> FastAPI:
        return routes(engine, "toy", accounts=Accounts(self.database), storage=storage)


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path, Terms())


@pytest.fixture
def http(bank: Bank, engine: ToyEngine) -> Iterator[TestClient]:
    with TestClient(bank.app(engine), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(("path", "body"), DRAWS)
def test_every_dialect_draws_the_same_again_for_nothing(
    http: TestClient, engine: ToyEngine, bank: Bank, path: str, body: dict[str, Any]
) -> None:
    first, second = (http.post(path, json=body, headers=bank.headers("k1")) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert pictures(first) == pictures(second)
    assert bank.requests == 1
    other = http.post(path, json=body, headers=bank.headers("k2"))
    assert pictures(other) != pictures(first)
    assert bank.requests == 2
    seeds = [request.seed for request in engine.requests]
    assert seeds[0] == seeds[1] != seeds[2]


def pictures(answer: httpx.Response) -> object:
    if answer.headers["content-type"] != "application/json":
        return answer.content
    told = answer.json()
    return told.get("data") or told.get("images") or told.get("image")


def test_an_edit_and_a_stream_are_requests_too(http: TestClient, bank: Bank) -> None:
    made = http.post(IMAGES, json={"prompt": "x"}, headers=bank.headers("k1")).json()
    streamed = http.post(IMAGES, json={"prompt": "x", "stream": True}, headers=bank.headers("k1"))
    assert made["data"][0]["b64_json"] in streamed.text
    assert bank.requests == 1
    from schemathesis_pictures import dot

    for boundary in ("a", "b"):  # of a form that is sent again, only what it says is the same
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
        ).encode() + dot() + f"\r\n--{boundary}--\r\n".encode()  # fmt: skip
        kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
        answer = http.post("/v1/images/edits", content=body, headers=bank.headers("k2") | kind)
        assert answer.status_code == 200, answer.text
    assert bank.requests == 2


@pytest.mark.parametrize(("path", "body"), [*DRAWS[:3], ("/v1/predictions", {"input": {"prompt": "x"}})])
def test_a_key_with_another_request_is_refused_by_name(
    http: TestClient, bank: Bank, path: str, body: dict[str, Any]
) -> None:
    assert http.post(path, json=body, headers=bank.headers("k1")).status_code < 300
    changed = {**body, "prompt": "y"} if "prompt" in body else {"input": {"prompt": "y"}}
    refused = http.post(path, json=changed, headers=bank.headers("k1"))
    assert refused.status_code == 422
    assert "Idempotency-Key 'k1' was sent with another request before" in refused.text
    eventually(lambda: bank.requests == 1)
    at_another_route = http.post(
        "/v1/models/a/toy/predictions", json={"input": {"prompt": "x"}}, headers=bank.headers("k1")
    )
    assert at_another_route.status_code == 201
    eventually(lambda: bank.requests == 2)


@pytest.mark.parametrize("key", ["", " ", "a b", "\x7f", "x" * 256, '""'])
def test_what_is_no_key(http: TestClient, bank: Bank, key: str) -> None:
    answer = http.post(IMAGES, json={"prompt": "x"}, headers=bank.headers(key))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_the_drafts_quotes_mean_nothing(http: TestClient, bank: Bank) -> None:
    for key in ("k1", '"k1"'):
        assert http.post(IMAGES, json={"prompt": "x"}, headers=bank.headers(key)).status_code == 200
    assert bank.requests == 1


def test_keys_of_two_accounts_do_not_meet(engine: ToyEngine) -> None:
    accounts = FewCredits(9)
    with TestClient(routes(engine, "toy", accounts=accounts)) as http:
        for key, prompt in (("sk-good", "x"), ("sk-other", "y")):
            headers = {"x-api-key": key, "idempotency-key": "k1"}
            assert http.post(IMAGES, json={"prompt": prompt}, headers=headers).status_code == 200
    assert accounts.credits == 7
    assert engine.requests[0].seed != engine.requests[1].seed


def test_a_key_is_forgotten_after_a_day_and_worn_out_before(
    http: TestClient, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> int:
        return http.post(IMAGES, json={"prompt": "x", "num_inference_steps": 1}, headers=bank.headers("k1")).status_code

    monkeypatch.setattr(predictions, "MOST_USES", 3)
    assert [ask() for _ in range(4)] == [200, 200, 200, 422]
    assert bank.requests == 1
    now = time.time()
    monkeypatch.setattr("serve.front.predictions.time.time", lambda: now + 86_401)
    assert [ask(), ask()] == [200, 200]
    assert bank.requests == 2


def test_a_free_endpoint_keeps_keys_as_well(engine: ToyEngine) -> None:
    with TestClient(routes(engine, "toy")) as http:
        headers = {"idempotency-key": "k1"}
        first, second = (http.post(IMAGES, json={"prompt": "x"}, headers=headers) for _ in range(2))
        assert pictures(first) == pictures(second)
        assert http.post(IMAGES, json={"prompt": "y"}, headers=headers).status_code == 422


# ---- at once


def at_once(work: Callable[[], Any], times: int) -> list[Any]:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(work())) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_twins_get_the_same_pictures_for_one_charge(bank: Bank, tmp_path: Path) -> None:
    """At two fronts over one store, as replicas of the front are."""
    fronts = [ToyEngine(step_s=0.005), ToyEngine(step_s=0.005)]
    storage = tmp_path / "predictions.db"
    with listening(bank.app(fronts[0], storage)) as one, listening(bank.app(fronts[1], storage)) as other:
        turns = iter([one, other] * 4)
        headers = bank.headers("k1")
        answers = at_once(
            lambda: httpx.post(next(turns) + IMAGES, json={"prompt": "x"}, headers=headers, timeout=60), 8
        )
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.json()["data"][0]["b64_json"] for answer in answers}) == 1
    assert bank.requests == 1


def test_a_client_that_gave_up_and_asks_again_is_drawn_for_and_pays_once(bank: Bank, engine: ToyEngine) -> None:
    engine.painter.step_s = 0.02
    body = {"prompt": "x", "num_inference_steps": 60}
    with listening(bank.app(engine)) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + IMAGES, json=body, headers=bank.headers("k1"), timeout=httpx.Timeout(5, read=0.3))
        assert httpx.post(url + IMAGES, json=body, headers=bank.headers("k1"), timeout=60).status_code == 200
    assert bank.requests == 1


def test_the_openai_client_sends_it_by_extra_headers(bank: Bank, engine: ToyEngine) -> None:
    with listening(bank.app(engine)) as url:
        client = openai.OpenAI(api_key=bank.key, base_url=f"{url}/v1", max_retries=0)
        again = {"Idempotency-Key": "order-17"}
        first, second = (client.images.generate(prompt="x", extra_headers=again).data for _ in range(2))
        assert first == second
        with pytest.raises(openai.UnprocessableEntityError, match="order-17"):
            client.images.generate(prompt="y", extra_headers=again)
    assert bank.requests == 1


# ---- predictions


def test_a_prediction_that_is_begun_again_is_the_same_one(http: TestClient, bank: Bank, engine: ToyEngine) -> None:
    body = {"input": {"prompt": "x", "num_inference_steps": 3}}
    first = http.post("/v1/predictions", json=body, headers=bank.headers("k1")).json()
    second = http.post("/v1/predictions", json=body, headers=bank.headers("k1") | {"prefer": "wait"}).json()
    assert (first["id"], first["input"]) == (second["id"], second["input"])
    assert second["status"] == "succeeded"
    assert len(engine.requests) == 1
    eventually(lambda: bank.requests == 1)
    (listed,) = http.get("/v1/predictions", headers={"x-api-key": bank.key}).json()["results"]
    assert listed["id"] == first["id"]


def test_a_twin_at_another_front_waits_for_the_prediction(bank: Bank, tmp_path: Path) -> None:
    fronts, storage = [ToyEngine(step_s=0.05), ToyEngine()], tmp_path / "predictions.db"
    body = {"input": {"prompt": "x", "num_inference_steps": 10}}
    headers = bank.headers("k1")
    with listening(bank.app(fronts[0], storage)) as one, listening(bank.app(fronts[1], storage)) as other:
        begun = httpx.post(f"{one}/v1/predictions", json=body, headers=headers).json()
        waited = httpx.post(f"{other}/v1/predictions", json=body, headers=headers | {"prefer": "wait=30"}, timeout=60)
    assert (waited.json()["id"], waited.json()["status"]) == (begun["id"], "succeeded")
    assert not fronts[1].requests
    assert bank.requests == 1
