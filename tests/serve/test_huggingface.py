"""Hugging Face's text-to-image task, by its own client over real HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from toy_front import ToyEngine, listening

from serve.dialects import huggingface
from serve.errors import RequestError
from serve.ingress import routes
from serve.styles import Style


@pytest.fixture(scope="module")
def engine() -> ToyEngine:
    return ToyEngine()


@pytest.fixture(scope="module")
def address(engine: ToyEngine) -> Iterator[str]:
    with listening(routes(engine, "toy", styles={"flat": Style("flat", "flat {prompt}")})) as url:
        yield url


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client refuses to speak where the environment says that there is no hub; it speaks to this machine only."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("path", ["", "/models/toy", "/models/ssd1b/toy"])
def test_the_client_gets_a_picture(address: str, engine: ToyEngine, path: str) -> None:
    client = InferenceClient(model=f"{address}{path}", provider="hf-inference")
    image = client.text_to_image(
        "a red apple",
        negative_prompt="grey",
        num_inference_steps=3,
        guidance_scale=2.5,
        width=192,
        height=64,
        scheduler="DDIMScheduler",
        seed=9,
        extra_body={"lora": {"name": "ink", "scale": 0.5}, "style": "flat"},
    )
    assert image.size == (192, 64)
    request = engine.requests[-1]
    assert (request.prompt, request.negative_prompt, request.seed) == ("flat a red apple", "grey", 9)
    assert (request.steps, request.guidance, request.sampler) == (3, 2.5, "ddim")
    assert [(one.name, one.scale) for one in request.loras] == [("ink", 0.5)]


def test_a_refusal_is_read_by_the_client(address: str) -> None:
    client = InferenceClient(model=address, provider="hf-inference")
    with pytest.raises(HfHubHTTPError, match="offered: 128x128"):
        client.text_to_image("x", width=1024, height=1024)
    answer = httpx.post(address, json={"inputs": "x", "parameters": {"width": 1024, "height": 1024}})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert "offered: 128x128" in answer.json()["error"]
    other = httpx.post(f"{address}/models/sdxl", json={"inputs": "x"})
    assert (other.status_code, "serves 'toy'" in other.json()["error"]) == (404, True)


def test_the_accept_header_chooses_the_format(address: str) -> None:
    for accept, magic in (("image/jpeg", b"\xff\xd8"), ("image/webp;q=1, */*", b"RIFF"), ("*/*", b"\x89PNG")):
        answer = httpx.post(address, json={"inputs": "x"}, headers={"accept": accept})
        assert answer.content.startswith(magic)
        assert int(answer.headers["x-seed"]) >= 0
    assert httpx.post(address, json={"inputs": "x"}, headers={"accept": "text/html"}).status_code == 406


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "Missing required parameter: 'inputs'"),
        ({"inputs": " "}, "inputs is empty"),
        ({"inputs": ["x"]}, "valid string"),
        ({"inputs": "x", "parameters": {"widht": 3}}, "parameters.widht"),
        ({"inputs": "x", "parameters": {"scheduler": "PNDMScheduler"}}, "offered: EulerDiscreteScheduler"),
        ({"inputs": "x", "parameters": 7}, "parameters"),
    ],
)
def test_refusals(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        huggingface.to_request(huggingface.read(json.dumps(fields).encode()))
