"""The webhook's signature, as MLflow itself makes it, and everything that must not pass for one."""

import time
from collections.abc import Callable

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from mlflow.webhooks.delivery import _generate_hmac_signature

from serve.errors import RequestError
from serve.rollout.hook import AGE_S, PATH, hook

SECRET, BODY = "s3cret", '{"entity": "model_version_alias"}'


def signed(secret: str = SECRET, age_s: float = 0.0, body: str = BODY) -> dict[str, str]:
    stamp = str(int(time.time() - age_s))
    signature = _generate_hmac_signature(secret, "delivery-1", stamp, body)
    return {"X-MLflow-Signature": signature, "X-MLflow-Timestamp": stamp, "X-MLflow-Delivery-Id": "delivery-1"}


def client(secret: str | None, nudges: list[int]) -> TestClient:
    async def nudge() -> None:
        nudges.append(1)

    app = FastAPI()

    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return JSONResponse(error.body(), error.status)

    app.include_router(hook(secret, nudge))
    return TestClient(app)


def test_what_mlflow_signs_is_heard() -> None:
    nudges: list[int] = []
    answer = client(SECRET, nudges).post(PATH, content=BODY, headers=signed())
    assert (answer.status_code, nudges) == (204, [1])


@pytest.mark.parametrize(
    ("headers", "body", "status"),  # headers are made when the test runs: they age
    [
        (lambda: {}, BODY, 401),
        (lambda: signed("another"), BODY, 401),
        (lambda: signed(), BODY + " ", 401),
        (lambda: signed(age_s=AGE_S + 60), BODY, 401),
        (lambda: signed(age_s=-AGE_S - 60), BODY, 401),
        (lambda: signed() | {"X-MLflow-Delivery-Id": "delivery-2"}, BODY, 401),
        (lambda: signed() | {"X-MLflow-Signature": "v1,\u00e9".encode()}, BODY, 401),
        (lambda: signed(), "x" * (2**20 + 1), 413),
    ],
)
def test_nothing_else_is(headers: Callable[[], dict[str, str | bytes]], body: str, status: int) -> None:
    nudges: list[int] = []
    answer = client(SECRET, nudges).post(PATH, content=body, headers=headers())
    assert (answer.status_code, nudges) == (status, [])


def test_without_a_secret_it_is_closed() -> None:
    nudges: list[int] = []
    answer = client(None, nudges).post(PATH, content=BODY, headers=signed())
    assert (answer.status_code, nudges) == (403, [])
    assert "SSD1B_WEBHOOK_SECRET" in answer.json()["error"]["message"]
