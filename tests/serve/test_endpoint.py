"""The endpoint over real HTTP on a real Ray cluster: the nano model, the OpenAI SDK, a killed replica."""

import base64
import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai.types import ImagesResponse
from PIL import Image
from ray import serve
from ray.serve.handle import DeploymentHandle
from registry import adapter_folder, register_lora, register_nano

from cluster.local import free_ports
from serve.answer import Generation
from serve.app import build
from serve.request import GenerationRequest
from serve.settings import Settings
from serve.upkeep import NAME, require_answer, start, url_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Endpoint:
    client: openai.OpenAI
    engine: DeploymentHandle[Any]

    def draw(self, prompt: str = "a red apple", **fields: Any) -> ImagesResponse:
        return self.client.images.generate(prompt=prompt, extra_body={"seed": 1, "num_inference_steps": 2} | fields)

    def picture(self, **fields: Any) -> bytes:
        made = self.draw(**fields).data
        assert made
        assert made[0].b64_json
        return base64.b64decode(made[0].b64_json)

    def replica_pid(self) -> int:
        request = GenerationRequest(prompt="x", seed=1, steps=1)
        made = self.engine.generate.remote(request).result(timeout_s=300)
        assert isinstance(made, Generation)
        return int(made.replica.removeprefix("pid "))


@pytest.fixture(scope="module")
def endpoint(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    assert ray_cluster
    home = tmp_path_factory.mktemp("endpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSD1B_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        register_nano()
        register_lora("ink", adapter_folder(home / "ink"))
        (port,) = free_ports(1)
        start("127.0.0.1", port)
        serve.run(build(Settings(batch_rows=4, max_replicas=1, open=True)), name=NAME, route_prefix="/")
        require_answer(url_of("127.0.0.1", port))
        client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
        yield Endpoint(client, serve.get_deployment_handle("Engine", NAME))
        serve.shutdown()


def test_a_picture_and_the_same_again(endpoint: Endpoint) -> None:
    made = endpoint.draw()
    assert made.usage
    assert (made.size, made.output_format, made.usage.output_tokens) == ("128x128", "png", 256)
    assert endpoint.picture().startswith(b"\x89PNG")
    assert endpoint.picture() == endpoint.picture()
    assert endpoint.picture() != endpoint.picture(seed=2)


def test_a_lora_by_name_and_one_that_was_registered_while_it_ran(endpoint: Endpoint, tmp_path: Path) -> None:
    pid = endpoint.replica_pid()
    plain, ink = endpoint.picture(), endpoint.picture(lora={"name": "ink", "scale": 4})
    assert plain != ink
    with pytest.raises(openai.BadRequestError, match=r"lora 'chalk' is not offered.*offered: ink"):
        endpoint.picture(lora="chalk")
    register_lora("chalk", adapter_folder(tmp_path / "chalk", seed=1))
    assert endpoint.picture(lora={"name": "chalk", "scale": 4}) not in (plain, ink)
    assert [model.id for model in endpoint.client.models.list()] == [
        "ssd1b-nano",
        "ssd1b-nano-lora-chalk",
        "ssd1b-nano-lora-ink",
    ]
    assert endpoint.replica_pid() == pid  # swapped without a restart


def test_what_it_does_not_offer(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="offered: 128x128") as info:
        endpoint.client.images.generate(prompt="x", size="1024x1024")
    assert (info.value.param, info.value.type) == ("size", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="140 tokens; ssd1b-nano reads at most 120"):
        endpoint.draw("apple " * 140)
    with pytest.raises(openai.NotFoundError):
        endpoint.client.images.generate(prompt="x", model="dall-e-3")


UNLIKE: list[dict[str, Any]] = [
    {"prompt": "a red apple"},
    {"prompt": "a tiger", "sampler": "ddim", "num_inference_steps": 5},
    {"prompt": "a fish", "sampler": "dpmpp_2m", "guidance_scale": 1},
    {"prompt": "a rabbit", "sampler": "euler_a", "num_inference_steps": 3},
    {"prompt": "a red apple", "lora": {"name": "ink", "scale": 2}},
    {"prompt": "a red apple", "lora": {"name": "ink", "scale": -2}, "seed": 9},
    {"prompt": "a tree", "negative_prompt": "grey", "num_inference_steps": 4},
    {"prompt": "a doughnut", "n": 2, "output_format": "webp"},
]


def test_eight_unlike_requests_at_once(endpoint: Endpoint) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda fields: endpoint.draw(**fields), UNLIKE))
    assert [len(one.data or []) for one in made] == [1, 1, 1, 1, 1, 1, 1, 2]


def test_a_replica_is_killed_and_no_request_fails(endpoint: Endpoint) -> None:
    pid = endpoint.replica_pid()
    with ThreadPoolExecutor(4) as pool:
        promises = [pool.submit(endpoint.picture, seed=seed, num_inference_steps=60) for seed in range(4)]
        time.sleep(1.5)
        assert not any(promise.done() for promise in promises)
        os.kill(pid, signal.SIGKILL)
        made = [promise.result(500) for promise in promises]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert endpoint.replica_pid() != pid
    assert len(set(made)) == 4
    # What was issued again drew the same; equal but for rounding, since its batch had another size.
    alone, other = endpoint.picture(seed=0, num_inference_steps=60), made[1]
    assert distance(alone, made[0]) < 1 < distance(alone, other)


def distance(one: bytes, other: bytes) -> float:
    """Mean absolute difference of two pictures, levels of 255."""
    first, second = (np.asarray(Image.open(io.BytesIO(data)), np.float64) for data in (one, other))
    return float(np.abs(first - second).mean())
