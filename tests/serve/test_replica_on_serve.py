"""The replica's hooks on a real Serve: a stream that is cancelled, draining, health under load."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from serve_toy import deployed, wait_for

from serve.answer import Generation, Preview, Progress
from serve.request import GenerationRequest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def handle(ray_cluster: object) -> Iterator[Any]:
    assert ray_cluster
    with deployed("hooks", step_s=0.05, health_check_period_s=1, health_check_timeout_s=3) as handle:
        yield handle


def asked(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**({"prompt": "x", "seed": 1, "steps": 20} | fields))


def idle(handle: Any) -> bool:
    report = handle.report.remote().result(timeout_s=10)
    return bool(report["rows"] == 0 and report["queue"] == 0)


def test_events_come_as_they_happen(handle: Any) -> None:
    stream = handle.options(stream=True).draw.remote(asked(previews=2))
    told = [(time.monotonic(), event) for event in stream]
    assert isinstance(told[-1][1], Generation)
    assert sum(isinstance(event, Preview) for _, event in told) == 2
    assert sum(isinstance(event, Progress) for _, event in told) >= 3
    assert told[-1][0] - told[0][0] > 0.5  # not all at the end


@pytest.mark.parametrize("way", ["stream", "answer"])
def test_a_caller_who_goes_stops_the_work(handle: Any, way: str) -> None:
    request = asked(steps=2000)
    if way == "stream":
        stream = handle.options(stream=True).draw.remote(request)
        next(iter(stream))
        stream.cancel()
    else:
        answer = handle.generate.remote(request)
        wait_for(lambda: not idle(handle), 20)
        answer.cancel()
    assert wait_for(lambda: idle(handle), 10) < 5  # 2000 steps would take 100 s


def test_a_stream_that_is_closed_by_its_reader(handle: Any) -> None:
    async def scene() -> None:
        response = handle.options(stream=True).draw.remote(asked(steps=2000))
        async for _ in response:
            break
        response.cancel()

    asyncio.run(scene())
    assert wait_for(lambda: idle(handle), 10) < 5


def test_draining_finishes_what_was_accepted(handle: Any) -> None:
    """The application is taken down while requests draw; under load the replica was never taken for dead."""
    drawing = [handle.generate.remote(asked(seed=seed, steps=80, n=2)) for seed in range(6)]
    wait_for(lambda: not idle(handle), 20)
    pids = {handle.report.remote().result(timeout_s=10)["name"]}
    serve.delete("hooks", _blocking=False)
    made = [answer.result(timeout_s=120) for answer in drawing]
    assert [one.pictures[0].seed for one in made] == list(range(6))
    assert {one.replica for one in made} == pids
