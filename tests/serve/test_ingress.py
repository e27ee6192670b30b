"""The front over a toy engine, without Ray: routes, headers, error shapes, re-issue after a death."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError
from toy_front import ToyEngine

from serve.front.again import ATTEMPTS
from serve.front.bodies import JSON_BYTES
from serve.ingress import routes
from serve.request import GenerationRequest

ROUTE = "/v1/images/generations"


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def http(engine: ToyEngine) -> Iterator[TestClient]:
    with TestClient(routes(engine, "toy"), raise_server_exceptions=False) as client:
        yield client


def test_a_picture_with_headers(http: TestClient) -> None:
    answer = http.post(ROUTE, json={"prompt": "a red apple", "seed": 3, "n": 2})
    assert answer.status_code == 200
    assert [one["seed"] for one in answer.json()["data"]] == [3, 4]
    assert answer.json()["size"] == "128x128"
    assert answer.headers["x-request-id"].startswith("req_")
    assert int(answer.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_formats(http: TestClient, form: str, magic: bytes) -> None:
    answer = http.post(ROUTE, json={"prompt": "x", "output_format": form, "size": "192x64"}).json()
    assert base64.b64decode(answer["data"][0]["b64_json"]).startswith(magic)
    assert (answer["output_format"], answer["size"]) == (form, "192x64")


@pytest.mark.parametrize(
    ("fields", "status", "param", "says"),
    [
        ({"prompt": "one two three four five six"}, 400, "prompt", "6 tokens; toy reads at most 5"),
        ({"prompt": "x", "negative_prompt": "unreadable"}, 400, "negative_prompt", "negative_prompt: weight 99"),
        ({"prompt": "x", "size": "1024x1024"}, 400, "size", "offered: 128x128, 192x64"),
        ({"prompt": "x", "lora": "inc"}, 400, "lora", "offered: chalk, clay, ink"),
        ({"prompt": "x", "lora": "unfit"}, 400, "lora", "does not fit"),
        ({"prompt": "x", "model": "sdxl"}, 404, "model", "serves 'toy'"),
        ({"prompt": "x", "hight": 3}, 400, "hight", "Unknown parameter: 'hight'"),
    ],
)
def test_refusals(http: TestClient, fields: dict[str, Any], status: int, param: str, says: str) -> None:
    answer = http.post(ROUTE, json=fields)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param
    assert says in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "x-request-id" in answer.headers


def test_other_routes_and_methods_are_refused_in_the_same_shape(http: TestClient) -> None:
    for answer, status in ((http.get("/v1/chats"), 404), (http.get(ROUTE), 405)):
        assert answer.status_code == status
        assert "POST /v1/images/generations" in answer.json()["error"]["message"]
        assert "openai-processing-ms" in answer.headers


def test_a_huge_body_is_refused(http: TestClient) -> None:
    assert http.post(ROUTE, content=b"x" * (JSON_BYTES + 1)).status_code == 413


def test_models_and_health(http: TestClient) -> None:
    ids = [one["id"] for one in http.get("/v1/models").json()["data"]]
    assert ids == ["toy", "toy-lora-chalk", "toy-lora-clay", "toy-lora-ink", "toy-lora-unfit"]
    assert http.get("/healthz").json() == {"status": "ok"}


def test_a_dead_replica_is_asked_again_for_the_same_pictures(http: TestClient, engine: ToyEngine) -> None:
    engine.errors = [ActorDiedError()] * (ATTEMPTS - 1)
    assert http.post(ROUTE, json={"prompt": "x"}).status_code == 200
    assert len(engine.requests) == ATTEMPTS
    assert len(set(engine.requests)) == 1  # the seed was drawn before the first attempt


def test_a_request_that_kills_every_replica_ends(http: TestClient, engine: ToyEngine) -> None:
    engine.errors = [ActorDiedError()] * 99
    answer = http.post(ROUTE, json={"prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert len(engine.requests) == ATTEMPTS


def test_a_full_queue_is_429(http: TestClient, engine: ToyEngine) -> None:
    engine.errors = [BackPressureError(num_queued_requests=9, max_queued_requests=9)]
    answer = http.post(ROUTE, json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_what_nobody_foresaw_is_500_without_its_text(http: TestClient, engine: ToyEngine) -> None:
    engine.errors = [KeyError("a secret of the house")]
    answer = http.post(ROUTE, json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_unlike_requests_share_steps(engine: ToyEngine) -> None:
    painter = engine.painter
    painter.step_s = 0.01
    requests = [GenerationRequest(prompt="x", seed=seed, steps=1 + seed % 4) for seed in range(8)]

    async def scene() -> list[Any]:
        return await asyncio.gather(*map(engine.replica.generate, requests))

    made = asyncio.run(scene())
    assert [one.pictures[0].seed for one in made] == list(range(8))
    assert len(painter.batches) < sum(request.steps for request in requests)


def test_a_caller_who_leaves_stops_the_work(engine: ToyEngine) -> None:
    painter = engine.painter
    painter.step_s = 0.01

    async def scene() -> None:
        task = asyncio.create_task(engine.replica.generate(GenerationRequest(prompt="x", seed=1, steps=100, n=3)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.replica.generate(GenerationRequest(prompt="x", seed=2, steps=1))

    asyncio.run(scene())
    assert 1 <= sum(len(batch) for batch in painter.batches) < 100
