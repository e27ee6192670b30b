"""The front on a real Serve, over HTTP: streams, clients that hang up, a replica killed in a stream, the board."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types import ImageGenCompletedEvent
from ray import serve
from serve_toy import HERE, OpenToy, wait_for

from cluster.local import free_ports
from serve.ingress import Ingress
from serve.model import Fixed
from serve.replica import Replica
from serve.upkeep import require_answer, start, url_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
NAME = "toyfront"
LONG = {"prompt": "x", "num_inference_steps": 100, "seed": 3}


@pytest.fixture(scope="module")
def address(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert ray_cluster
    (port,) = free_ports(1)
    start("127.0.0.1", port)
    env = {"PYTHONPATH": HERE, "SSD1B_HOME": str(tmp_path_factory.mktemp("home"))}
    actor = {"num_cpus": 0.5, "runtime_env": {"env_vars": env}}
    engine = serve.deployment(Replica).options(
        name="Engine", max_ongoing_requests=100, health_check_period_s=1, ray_actor_options=actor
    )
    front = serve.deployment(Ingress).options(name="Ingress", max_ongoing_requests=100, ray_actor_options=actor)
    serve.run(front.bind(engine.bind(Fixed(OpenToy(0.02)), 4), "toy"), name=NAME, route_prefix="/")
    require_answer(url_of("127.0.0.1", port))
    yield url_of("127.0.0.1", port)
    serve.shutdown()


def board(address: str) -> list[dict[str, object]]:
    replicas: list[dict[str, object]] = httpx.get(f"{address}/status", timeout=60).json()["replicas"]
    return replicas


def idle(address: str) -> bool:
    return all(replica["rows"] == 0 and replica["queue"] == 0 for replica in board(address))


def test_a_stream_over_http(address: str) -> None:
    client = openai.OpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0)
    begun = time.monotonic()
    told = []
    for event in client.images.generate(prompt="x", stream=True, partial_images=3, extra_body=LONG):
        told.append((event.type.rpartition(".")[2], time.monotonic() - begun))
    assert [kind for kind, _ in told] == ["partial_image"] * 3 + ["completed"]
    assert told[-1][1] - told[0][1] > 0.5  # as they happen, not all at the end


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_work(address: str, stream: bool) -> None:
    wait_for(lambda: idle(address), 30)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{address}/v1/images/generations",
            json={**LONG, "n": 4, "stream": stream},
            timeout=httpx.Timeout(5, read=0.6),
        )
    assert wait_for(lambda: idle(address), 10) < 1.5  # all its steps would take 2 s more


def test_the_board_tells_of_every_replica(address: str) -> None:
    (replica,) = board(address)
    assert {"name", "queue", "rows", "row_steps_left", "row_steps_per_s", "resident", "version"} <= set(replica)


def test_a_prediction_outlives_the_request(address: str) -> None:
    made = httpx.post(
        f"{address}/v1/predictions", json={"input": {**LONG, "num_inference_steps": 10}}, timeout=30
    ).json()
    url = f"{address}/v1/predictions/{made['id']}"
    wait_for(lambda: httpx.get(url, timeout=30).json()["status"] == "succeeded", 30)


def test_a_replica_is_killed_in_a_stream_and_the_client_sees_none_of_it(address: str) -> None:
    """Also for one that does not stream; both draw what an undisturbed request draws."""
    client = openai.OpenAI(api_key="none", base_url=f"{address}/v1", max_retries=0, timeout=120)
    calm = client.images.generate(prompt="x", extra_body=LONG).data
    pid = int(str(board(address)[0]["name"]).removeprefix("pid "))
    plain: list[object] = []
    thread = threading.Thread(target=lambda: plain.append(client.images.generate(prompt="x", extra_body=LONG).data))
    thread.start()
    events = []
    for event in client.images.generate(prompt="x", stream=True, partial_images=3, extra_body=LONG):
        events.append(event)
        if len(events) == 2:
            os.kill(pid, signal.SIGKILL)
    thread.join(120)
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image"] * 3 + ["completed"]
    assert isinstance(events[-1], ImageGenCompletedEvent)
    assert calm
    assert events[-1].b64_json == calm[0].b64_json
    assert plain == [calm]
    assert str(board(address)[0]["name"]) != f"pid {pid}"
