"""The client of the load tests: sends requests when they are planned, whether or not the earlier ones are answered."""

import asyncio
import base64
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssd1b.trials.load.report import Answer
from ssd1b.trials.load.trace import Ask

ROUTE = "/v1/images/generations"
NOT_IN_TIME = "no answer in time"
READY_S = 300.0
"""How long a server may take from its start to its first picture: two busy cores import torch for a while."""


def replay(url: str, asks: Sequence[Ask], patience_s: float, headers: Mapping[str, str] | None = None) -> list[Answer]:
    """Send each request at its moment (open loop) and return what became of them, in the same order.

    What has no answer patience_s after the last request was to be sent is given up, its connection closed.
    """

    async def run() -> list[Answer]:
        async with client(url, headers) as http:
            began = time.monotonic()
            tasks = [asyncio.create_task(later(http, ask, began)) for ask in asks]
            await asyncio.wait(tasks, timeout=max(ask.at_s for ask in asks) + patience_s)
            for task in tasks:
                task.cancel()
            return await asyncio.gather(*tasks)

    return asyncio.run(run())


def in_turn(url: str, asks: Sequence[Ask], headers: Mapping[str, str] | None = None) -> list[Answer]:
    """Send each request when the one before is answered."""

    async def run() -> list[Answer]:
        async with client(url, headers) as http:
            began = time.monotonic()
            return [await send(http, ask, began, time.monotonic() - began) for ask in asks]

    return asyncio.run(run())


@dataclass(frozen=True)
class Crowd:
    """Callers who ask again as soon as they are answered (closed loop)."""

    asks: Iterator[Ask]
    callers: int


def busy(url: str, seconds: float, *crowds: Crowd) -> list[list[Answer]]:
    """Let crowds ask side by side for so long; return for each what was answered by then."""
    answers: list[list[Answer]] = [[] for _ in crowds]

    async def caller(http: httpx.AsyncClient, began: float, crowd: Crowd, found: list[Answer]) -> None:
        for ask in crowd.asks:
            answer = await send(http, ask, began, time.monotonic() - began)
            if answer.error == NOT_IN_TIME:
                return
            found.append(answer)

    async def run() -> None:
        async with client(url) as http:
            began = time.monotonic()
            tasks = [
                asyncio.create_task(caller(http, began, crowd, found))
                for crowd, found in zip(crowds, answers, strict=True)
                for _ in range(crowd.callers)
            ]
            await asyncio.wait(tasks, timeout=seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)

    asyncio.run(run())
    return answers


async def later(http: httpx.AsyncClient, ask: Ask, began: float) -> Answer:
    try:
        await asyncio.sleep(began + ask.at_s - time.monotonic())
    except asyncio.CancelledError:  # its moment never came
        return Answer(planned_s=ask.at_s, sent_s=ask.at_s, error=NOT_IN_TIME, steps=ask.steps)
    return await send(http, ask, began, ask.at_s)


async def send(http: httpx.AsyncClient, ask: Ask, began: float, planned_s: float) -> Answer:
    """Send a request now and return what became of it; being cancelled is an answer too."""
    sent_s = time.monotonic() - began
    told: dict[str, Any] = {}
    try:
        response = await http.post(ROUTE, json=ask.body())
        told = {"answered_s": time.monotonic() - began, "status": response.status_code, "bytes": len(response.content)}
        if response.status_code != 200:
            told["error"] = response.text[:300] or f"status {response.status_code}"
    except asyncio.CancelledError:
        told = {"error": NOT_IN_TIME}
    except httpx.HTTPError as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    return Answer(planned_s=planned_s, sent_s=sent_s, steps=ask.steps, **told)


def require(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Return the answers.

    Raises:
        RuntimeError: requests failed that nothing was to hinder.
    """
    failed = [answer.error for answer in answers if not answer.ok]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(answers)} requests failed, the first with: {failed[0]}")
    return answers


def client(url: str, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """Return a client without limits of its own: neither on time nor on connections."""
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=None, limits=unlimited, headers=headers)


def picture(url: str, ask: Ask, headers: Mapping[str, str] | None = None) -> NDArray[np.uint8]:
    """Return the pixels_HW3 that a server draws.

    Raises:
        RuntimeError: it draws none.
    """
    response = httpx.post(f"{url}{ROUTE}", json=ask.body(), timeout=READY_S, headers=headers)
    if response.status_code != 200:
        raise RuntimeError(f"{url} answers {response.status_code}: {response.text[:300]}")
    return pixels(response.json())


def pixels(answer: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the pixels_HW3 of the first picture in an answer of the Images route."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).convert("RGB"))


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float | None:
    """Return the peak signal-to-noise ratio of two pictures, decibels; None where they are equal."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return None if error == 0 else round(10 * float(np.log10(255**2 / error)), 1)
