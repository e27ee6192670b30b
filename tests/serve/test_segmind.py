"""Segmind's /v1/ssd-1b: its fields, defaults, limits, statuses and headers."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from accounts_at_hand import FewCredits
from fastapi.testclient import TestClient
from toy_front import ToyEngine

from serve.dialects import segmind
from serve.errors import RequestError
from serve.ingress import routes

ROUTE = "/v1/ssd-1b"
LEAST = {"prompt": "x", "scheduler": "Euler"}
"""The toy model has no DPM++ 2M, the default."""


@pytest.fixture
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture
def http(engine: ToyEngine) -> Iterator[TestClient]:
    with TestClient(routes(engine, "toy", accounts=FewCredits(1))) as client:
        client.headers["x-api-key"] = "sk-good"
        yield client


def test_defaults_are_those_of_the_newer_page() -> None:
    request = segmind.to_request(segmind.read(b'{"prompt": "x"}'))
    assert (request.sampler, request.steps, request.guidance, request.n) == ("dpmpp_2m", 45, 7.0, 1)
    assert (request.negative_prompt, request.size, request.output_format) == ("blurry,out of focus", None, "jpeg")
    other = segmind.to_request(segmind.read(b'{"prompt": "x", "seed": -1}'))
    assert request.seed != other.seed  # -1, and none, draw one
    assert segmind.to_request(segmind.read(b'{"prompt": "x", "seed": 999999999999999}')).seed == 999_999_999_999_999


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "prompt", "Missing"),
        ({"prompt": " "}, "prompt", "say what to draw"),
        ({"prompt": "x", "samples": 5}, "samples", "less than or equal to 4"),
        ({"prompt": "x", "num_inference_steps": 19}, "num_inference_steps", "greater than or equal to 20"),
        ({"prompt": "x", "num_inference_steps": 101}, "num_inference_steps", "less than or equal to 100"),
        ({"prompt": "x", "guidance_scale": 0.5}, "guidance_scale", "greater than or equal to 1"),
        ({"prompt": "x", "guidance_scale": 26}, "guidance_scale", "less than or equal to 25"),
        ({"prompt": "x", "seed": -2}, "seed", "greater than or equal to -1"),
        ({"prompt": "x", "seed": 10**15}, "seed", "less than or equal to 999999999999999"),
        ({"prompt": "x", "scheduler": "DPM2 Karras"}, "scheduler", "offered: DPM Multi, UniPC, Euler"),
        ({"prompt": "x", "img_width": 0}, "img_width", "greater than 0"),
        ({"prompt": "x", "base64": "yes"}, "base64", "boolean"),
        ({"prompt": "x", "stepps": 3}, "stepps", "Unknown parameter"),
    ],
)
def test_limits(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as info:
        segmind.to_request(segmind.read(json.dumps(fields).encode()))
    assert info.value.param == param


def test_a_jpeg_with_the_headers_that_clients_read(http: TestClient, engine: ToyEngine) -> None:
    answer = http.post(ROUTE, json={**LEAST, "seed": 5, "num_inference_steps": 20})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8\xff")
    assert answer.headers["x-remaining-credits"] == "0"
    assert answer.headers["x-rate-limit-remaining"] == "9"
    assert answer.headers["x-rate-limit-reset-at-utc"].endswith("+00:00")
    assert float(answer.headers["x-generation-time"]) > 0
    assert json.loads(answer.headers["x-output-metadata"]) == {"seed": 5, "img_width": 128, "img_height": 128}
    assert engine.requests[-1].seeds == (5,)


def test_base64_for_one_and_for_several(http: TestClient) -> None:
    one = http.post(ROUTE, json={**LEAST, "base64": True}).json()
    assert base64.b64decode(one["image"]).startswith(b"\xff\xd8\xff")


def test_several_pictures_are_json(engine: ToyEngine) -> None:
    with TestClient(routes(engine, "toy")) as http:
        assert len(http.post(ROUTE, json={**LEAST, "samples": 3, "base64": True}).json()["images"]) == 3
        assert len(http.post(ROUTE, json={**LEAST, "samples": 2}).json()["images"]) == 2  # a JPEG holds one
        assert http.post(ROUTE, json={**LEAST, "img_width": 128}).headers["content-type"] == "image/jpeg"
        sized = http.post(ROUTE, json={**LEAST, "img_width": 192, "img_height": 64, "base64": True})
        assert json.loads(sized.headers["x-output-metadata"])["img_width"] == 192


def test_statuses_and_the_error_object(http: TestClient) -> None:
    assert http.post(ROUTE, json=LEAST, headers={"x-api-key": "sk-bad"}).status_code == 401
    assert http.get(ROUTE).status_code == 405
    assert http.post("/v1/ssd-2b", json=LEAST).status_code == 404
    large = http.post(ROUTE, json={**LEAST, "img_width": 1024, "img_height": 1024})
    assert (large.status_code, "offered: 128x128, 192x64" in large.json()["error"]) == (400, True)
    assert http.post(ROUTE, json=LEAST).status_code == 200
    broke = http.post(ROUTE, json=LEAST)
    assert (broke.status_code, list(broke.json())) == (406, ["error"])
    assert "credits" in broke.json()["error"]
