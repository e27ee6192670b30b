"""What all dialects share: asking again, accounts, styles, bodies and clients that behave badly, the log."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from accounts_at_hand import FewCredits
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from toy_front import ToyEngine, eventually, listening

from serve.accounts import Accounts
from serve.accounts.database import Database
from serve.accounts.office import Office, Terms
from serve.answer import Event, Generation, Picture, Preview, Progress
from serve.errors import RequestError
from serve.front import bodies, gone
from serve.front.again import ATTEMPTS, draw_again
from serve.front.gone import awake, sse
from serve.front.refusals import dialect_of
from serve.ingress import routes
from serve.styles import Style
from ssd1b.sizes import Size

ROUTE = "/v1/images/generations"
MADE = Generation(pictures=(Picture(data=b"x", seed=1),), size=Size(8, 8), prompt_tokens=1, latent_tokens=1)
STORY: list[Event] = [
    Progress(made=1, of=3),
    Preview(picture=0, index=0, data=b"a"),
    Progress(made=2, of=3),
    Preview(picture=0, index=1, data=b"b"),
    Progress(made=3, of=3),
    MADE,
]


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def http(engine: ToyEngine) -> Iterator[TestClient]:
    with TestClient(routes(engine, "toy"), raise_server_exceptions=False) as client:
        yield client


def drawn(deaths: list[int]) -> list[Event]:
    """What is told of a story whose attempts die after so many events each."""
    left = list(deaths)

    async def story() -> AsyncIterator[Event]:
        after = left.pop(0) if left else len(STORY)
        for event in STORY[:after]:
            yield event
        if after < len(STORY):
            raise ActorDiedError()

    async def collected() -> list[Event]:
        return [event async for event in draw_again(story, "req")]

    return asyncio.run(collected())


@given(st.lists(st.integers(0, len(STORY) - 1), max_size=ATTEMPTS - 1))
def test_whatever_dies_meanwhile_the_story_is_told_once_and_in_order(deaths: list[int]) -> None:
    assert drawn(deaths) == STORY


def test_a_request_that_kills_every_replica_ends_in_a_stream_too() -> None:
    with pytest.raises(RequestError, match="died 4 times") as info:
        drawn([2] * ATTEMPTS)
    assert info.value.status == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BackPressureError(num_queued_requests=9, max_queued_requests=9), 429),
        (DeploymentUnavailableError(None), 503),
    ],
)
def test_what_serve_cannot_take_is_said(http: TestClient, engine: ToyEngine, error: Exception, status: int) -> None:
    for stream in (False, True):
        engine.errors = [error]
        answer = http.post(ROUTE, json={"prompt": "x", "stream": stream})
        assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")


def test_closing_the_story_closes_the_call() -> None:
    closed = []

    async def story() -> AsyncIterator[Event]:
        try:
            for event in STORY:
                yield event
        finally:
            closed.append(True)

    async def scene() -> None:
        events = draw_again(story, "req")
        await anext(events)
        await events.aclose()

    asyncio.run(scene())
    assert closed == [True]


def test_events_as_text() -> None:
    assert sse("a\nb", "news", 3) == "id: 3\nevent: news\ndata: a\ndata: b\n\n"
    assert sse("{}") == "data: {}\n\n"


def test_a_quiet_stream_is_kept_awake_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone, "QUIET_S", 0.02)

    async def slow() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(0.1)
        yield "last"

    async def collected() -> list[str]:
        return [text async for text in awake(slow())]  # type: ignore[arg-type]

    told = asyncio.run(collected())
    assert told[0] == "first"
    assert told[-1] == "last"
    assert set(told[1:-1]) == {": waiting\n\n"}


def paid(accounts: FewCredits, engine: ToyEngine) -> FastAPI:
    return routes(engine, "toy", accounts=accounts)


def test_keys_where_each_dialect_has_them_and_nothing_without(engine: ToyEngine) -> None:
    keys: list[dict[str, Any]] = [
        {"headers": {"authorization": "Bearer sk-good"}},
        {"headers": {"authorization": "token sk-good"}},
        {"headers": {"x-api-key": "sk-good"}},
        {"auth": ("anybody", "sk-good")},
    ]
    wrong: list[dict[str, Any]] = [
        {},
        {"headers": {"authorization": "Bearer sk-bad"}},
        {"headers": {"authorization": "Basic %%%"}},
        {"headers": {"authorization": "Digest x"}},
        {"headers": {"authorization": "Bearer"}},
    ]
    with TestClient(paid(FewCredits(9), engine)) as http:
        for key in keys:
            assert http.get("/v1/offer", **key).status_code == 200
        for key in wrong:
            answer = http.get("/v1/offer", **key)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/v1/models", "/status", "/v1/styles", "/v1/predictions", "/v1/files", "/sdapi/v1/options"):
            assert http.get(path).status_code == 401, path
        assert http.get("/healthz").status_code == 200


def test_the_real_ledger_behind_the_routes(engine: ToyEngine, tmp_path: Path) -> None:
    """A key that the office hands out, a price by steps and size, a captured and a released hold, a revoked key."""
    database, office = Database(f"sqlite:///{tmp_path / 'accounts.db'}"), Office()
    database.run(lambda connection: office.add(connection, "amy", 1000, Terms(requests_per_minute=4)))
    key = database.run(lambda connection: office.key(connection, "amy", None))
    headers = {"authorization": f"Bearer {key['key']}"}
    with TestClient(routes(engine, "toy", accounts=Accounts(database))) as http:
        assert http.post(ROUTE, json={"prompt": "x"}).status_code == 401
        made = http.post(ROUTE, json={"prompt": "x"}, headers=headers)
        assert (made.status_code, made.headers["x-ratelimit-limit-requests"]) == (200, "4")
        assert http.post(ROUTE, json={"prompt": "unreadable"}, headers=headers).status_code == 400
        body = {"prompt": "x", "scheduler": "Euler", "num_inference_steps": 20}
        segmind = http.post("/v1/ssd-1b", json=body, headers={"x-api-key": key["key"]})
        (amy,) = database.run(office.everyone)
        assert segmind.headers["x-remaining-credits"] == f"{amy['credits']:g}"
        used = database.run(lambda connection: office.usage(connection, "amy", 0.0))
        assert used["requests"] == 2
        database.run(lambda connection: office.revoke(connection, key["prefix"]))
        assert http.post(ROUTE, json={"prompt": "x"}, headers=headers).status_code == 401


def test_a_picture_is_paid_once_and_a_failure_is_not(engine: ToyEngine) -> None:
    accounts = FewCredits(2)
    key = {"authorization": "Bearer sk-good"}
    with TestClient(paid(accounts, engine), raise_server_exceptions=False) as http:
        engine.errors = [ActorDiedError()]  # asked again, charged once
        answer = http.post(ROUTE, json={"prompt": "x"}, headers=key)
        assert accounts.captured == [answer.headers["x-request-id"]]
        assert answer.headers["x-ratelimit-limit-requests"] == "10"
        assert answer.headers["x-ratelimit-remaining-requests"] == "9"
        assert answer.headers["x-ratelimit-reset-requests"] == "6.500s"
        for failure in ({"prompt": "unreadable"}, {"prompt": "unreadable", "stream": True}):
            assert http.post(ROUTE, json=failure, headers=key).status_code == 400
        engine.errors = [KeyError("unforeseen")]
        assert http.post(ROUTE, json={"prompt": "x"}, headers=key).status_code == 500
        assert (len(accounts.captured), len(accounts.released), accounts.credits) == (1, 3, 1)
        streamed = http.post(ROUTE, json={"prompt": "x", "stream": True}, headers=key)
        assert streamed.headers["x-ratelimit-limit-requests"] == "10"
        assert (len(accounts.captured), accounts.credits) == (2, 0)
        broke = http.post(ROUTE, json={"prompt": "x", "stream": True}, headers=key)
        assert (broke.status_code, broke.json()["error"]["code"]) == (402, "insufficient_credits")


def test_too_many_requests_say_when_to_come_back(engine: ToyEngine) -> None:
    with TestClient(paid(FewCredits(9, requests=0), engine)) as http:
        answer = http.post(ROUTE, json={"prompt": "x"}, headers={"authorization": "Bearer sk-good"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "12")


def test_a_batch_account_is_of_batch_priority_at_most(engine: ToyEngine) -> None:
    with TestClient(paid(FewCredits(9), engine)) as http:
        for key, priority in (("sk-good", "interactive"), ("sk-other", "batch")):
            http.post(ROUTE, json={"prompt": "x"}, headers={"x-api-key": key})
            assert engine.requests[-1].priority == priority


def test_a_client_that_leaves_does_not_pay(engine: ToyEngine) -> None:
    accounts = FewCredits(9)
    engine.painter.step_s = 0.02
    with listening(paid(accounts, engine)) as url, pytest.raises(httpx.ReadTimeout):
        httpx.post(
            url + ROUTE,
            json={"prompt": "x", "num_inference_steps": 100},
            headers={"x-api-key": "sk-good"},
            timeout=httpx.Timeout(5, read=0.3),
        )
    eventually(lambda: accounts.released)
    assert (accounts.captured, accounts.credits) == ([], 9)


def test_styles_go_around_the_prompt_in_every_dialect(engine: ToyEngine) -> None:
    styles = {"flat": Style("flat", "flat {prompt}", "grey")}
    with TestClient(routes(engine, "toy", styles=styles)) as http:
        http.post(ROUTE, json={"prompt": "x", "style": "flat", "negative_prompt": "dull"})
        request = engine.requests[-1]
        assert (request.prompt, request.negative_prompt, request.style) == ("flat x", "dull, grey", "flat")
        http.post(ROUTE, json={"prompt": "x", "style": "vivid"})
        assert engine.requests[-1].prompt == "x"
        refused = http.post(ROUTE, json={"prompt": "x", "style": "flatt"})
        assert "offered: flat" in refused.json()["error"]["message"]
        (told,) = http.get("/v1/styles").json()["styles"]
        assert (told["name"], told["title"], told["example"]) == ("flat", "Flat", "flat a red apple")


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "ink/../../x", "C:\\x", "\x00", "ink%2f..", "http://x/ink"])
def test_names_that_are_paths_are_no_adapters(http: TestClient, engine: ToyEngine, name: str) -> None:
    answer = http.post(ROUTE, json={"prompt": "x", "lora": name})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "lora")
    assert http.post("/sdapi/v1/txt2img", json={"prompt": f"x <lora:{name}>"}).status_code == 400
    assert not engine.painter.loads


def test_forms_that_are_none(http: TestClient) -> None:
    route = "/v1/images/edits"
    assert http.post(route, json={"prompt": "x"}).status_code == 415
    broken = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x", b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--", b"\xff" * 100):
        assert http.post(route, content=body, headers=broken).status_code == 400
    assert http.post(route, content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    many = [("image", (f"{i}.png", b"x")) for i in range(99)]
    assert http.post(route, data={"prompt": "x"}, files=many).status_code == 400
    twice = http.post(
        route,
        content=b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n' * 2 + b"--x--",
        headers=broken,
    )
    assert "given twice" in twice.json()["error"]["message"]


def test_a_body_is_refused_by_what_it_announces_before_it_is_sent(engine: ToyEngine) -> None:
    with listening(routes(engine, "toy")) as url:
        port = int(url.rsplit(":", 1)[1])
        for path, length in ((ROUTE, 2**40), ("/v1/images/edits", 2**40), ("/sdapi/v1/img2img", 2**40)):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
            kind = "multipart/form-data; boundary=x" if "edits" in path else "application/json"
            assert b" 413 " in answered(port, f"{head}Content-Type: {kind}\r\n\r\n".encode())


def test_a_client_that_sends_too_slowly_is_sent_away(engine: ToyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    with listening(routes(engine, "toy")) as url:
        port = int(url.rsplit(":", 1)[1])
        begun = time.monotonic()
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
        assert b" 408 " in answered(port, head + b'{"prompt')
        assert time.monotonic() - begun < 5


def answered(port: int, sent: bytes) -> bytes:
    """The first bytes that come back for what is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(sent)
        return wire.recv(200)


@pytest.mark.parametrize(
    "path", [ROUTE, "/v1/ssd-1b", "/sdapi/v1/txt2img", "/v1/predictions", "/", "/sdapi/v1/png-info"]
)
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"prompt": NaN}', b"null", b'"x"'])
def test_no_body_brings_a_front_down(http: TestClient, path: str, body: bytes) -> None:
    answer = http.post(path, content=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "dialect", "shape"),
    [
        (ROUTE, "openai", {"error"}),
        ("/v1/ssd-1b", "segmind", {"error"}),
        ("/sdapi/v1/txt2img", "a1111", {"detail", "error", "errors"}),
        ("/v1/predictions", "replicate", {"title", "detail"}),
        ("/models/toy", "huggingface", {"error"}),
        ("/healthz", "house", None),
    ],
)
def test_every_dialect_refuses_in_its_own_shape(
    http: TestClient, path: str, dialect: str, shape: set[str] | None
) -> None:
    assert dialect_of(path) == dialect
    if shape:
        assert set(http.post(path, content=b"{").json()) == shape
