"""What belongs to no dialect alone: the page, HEAD, the log and the counts, the store that is away."""

import json
import logging
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from toy_front import ToyEngine, listening

from serve.front import house
from serve.front.meters import Meters
from serve.front.predictions import Predictions
from serve.ingress import routes

ROUTE = "/v1/images/generations"


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def http(engine: ToyEngine) -> Iterator[TestClient]:
    with TestClient(routes(engine, "toy"), raise_server_exceptions=False) as client:
        yield client


def test_what_there_is(http: TestClient) -> None:
    offer = http.get("/v1/offer").json()
    assert (offer["sizes"], offer["samplers"]) == (["128x128", "192x64"], ["euler", "ddim"])
    assert offer["steps"] == {"default": 20, "max": 100}
    (replica,) = http.get("/status").json()["replicas"]
    assert {"name", "queue", "rows", "resident", "version"} <= set(replica)
    both = http.get("/v1/models").json()
    assert (both["object"], both["data"][0]["id"], both["results"][0]["name"]) == ("list", "toy", "toy")


def test_the_page_is_served_beside_the_routes_and_hides_none(
    engine: ToyEngine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("<h1>studio</h1>")
    (tmp_path / "app.js").write_text("let x")
    (tmp_path.parent / "secret.txt").write_text("secret")
    monkeypatch.setattr(house, "STUDIO", tmp_path)
    with TestClient(routes(engine, "toy")) as http:
        page = http.get("/")
        assert page.text == "<h1>studio</h1>"
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert http.get("/app.js").text == "let x"
        assert http.get("/nosuch.js").json()["error"]["code"] == "unknown_url"
        for trick in ("/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/app.js%00"):
            assert http.get(trick).status_code == 404, trick
        assert http.post("/nosuch").status_code == 404
        wrong = http.get(ROUTE)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert http.put("/").headers["allow"] == "GET, HEAD, POST"


def test_one_line_per_request(http: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        made = http.post(ROUTE, json={"prompt": "x", "n": 2}, headers={"x-request-id": "mine-7"})
        http.post(ROUTE, json={"prompt": "x", "lora": "inc"}, headers={"x-request-id": "forged\nline"})
    lines = [json.loads(record.message) for record in caplog.records if record.message.startswith("{")]
    assert len(lines) == 2
    assert lines[0].items() >= {
        "id": made.headers["x-request-id"], "dialect": "openai", "account": "local", "status": 200, "pictures": 2,
        "caller_id": "mine-7",
    }.items()  # fmt: skip
    assert lines[0]["seconds"] >= 0
    assert (lines[1]["status"], lines[1]["error"]) == (400, "invalid_value")
    assert "caller_id" not in lines[1]


def test_what_a_page_load_asks_for_is_in_the_log_only_if_it_fails(
    http: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        for path in ("/", "/js/dom.js", "/healthz"):
            assert http.get(path).status_code == 200
        assert http.get("/js/nosuch.js").status_code == 404
    assert [json.loads(record.message)["status"] for record in caplog.records] == [404]


@pytest.mark.parametrize("path", ["/", "/js/dom.js", "/healthz", "/v1/models", "/status", "/openapi.json", "/v1/files"])
def test_head_says_what_get_says_without_the_body(http: TestClient, path: str) -> None:
    head, whole = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]


def test_head_of_what_is_not_there(http: TestClient) -> None:
    assert [http.head(path).status_code for path in ("/nosuch", ROUTE, "/v1/predictions/nosuch")] == [404, 405, 404]


def test_head_of_a_stream_does_not_wait_for_its_end(engine: ToyEngine) -> None:
    engine.painter.gate.clear()
    with listening(routes(engine, "toy")) as url:
        made = httpx.post(f"{url}/v1/predictions", json={"input": {"prompt": "x", "num_inference_steps": 2}}).json()
        answer = httpx.head(f"{url}/v1/predictions/{made['id']}/stream", timeout=5)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        engine.painter.gate.set()


def test_a_store_that_is_away_is_said(engine: ToyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Predictions, "get", away)
    monkeypatch.setattr(Predictions, "first", away)
    with TestClient(routes(engine, "toy"), raise_server_exceptions=False) as http:
        told = http.get("/v1/predictions/any")
        assert (told.status_code, told.json()["title"]) == (503, "service_unavailable")
        keyed = http.post(ROUTE, json={"prompt": "x"}, headers={"idempotency-key": "k"})
        assert (keyed.status_code, keyed.headers["retry-after"]) == (503, "1")
    assert not engine.requests


def test_every_answer_is_counted_by_dialect_and_status(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[object, ...]] = []
    monkeypatch.setattr(Meters, "count", lambda _, *told: counted.append((*told[:2], *told[3:])))
    http.post(ROUTE, json={"prompt": "x", "n": 3})
    http.post("/v1/ssd-1b", json={"prompt": ""})
    assert counted == [("openai", 200, 3), ("segmind", 400, 0)]
