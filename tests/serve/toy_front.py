"""The front over a toy engine in this process, and on a real port where a real client is to speak to it."""

import socket
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from toy_painter import ToyAdapters, ToyPainter

from serve.answer import Event, Generation
from serve.board import board_of
from serve.errors import RequestError
from serve.model import Fixed
from serve.offer import Offer
from serve.replica import Replica
from serve.request import GenerationRequest


class ToyEngine:
    """A real Replica over a toy painter, in this process; raises `errors` first, one per call.

    `dies_after`: draws raise the first of `errors` only after so many events, as a replica does that dies meanwhile.
    """

    def __init__(
        self, step_s: float = 0.0, painter: ToyPainter | None = None, adapters: ToyAdapters | None = None
    ) -> None:
        self.errors: list[Exception] = []
        self.dies_after = 0
        self.requests: list[GenerationRequest] = []
        self.painter = painter or ToyPainter(step_s)
        self.replica = Replica(Fixed(lambda: (self.painter, adapters or ToyAdapters())), 4)

    async def generate(self, request: GenerationRequest) -> Generation | RequestError:
        self.requests.append(request)
        if self.errors:
            raise self.errors.pop(0)
        return await self.replica.generate(request)

    async def draw(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        if self.errors and not self.dies_after:
            raise self.errors.pop(0)
        async with aclosing(self.replica.draw(request)) as events:
            told = 0
            async for event in events:
                yield event
                told += 1
                if self.errors and told >= self.dies_after:
                    raise self.errors.pop(0)

    def offer(self) -> Awaitable[Offer]:
        return self.replica.offer()

    async def board(self) -> dict[str, Any]:
        return board_of("toy", [await self.replica.report()])

    async def nudge(self) -> None:
        await self.replica.look()

    @property
    def steps(self) -> int:
        """Rows advanced so far."""
        return sum(len(batch) for batch in self.painter.batches)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Serve the app on a free port of this machine; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"


def eventually(holds: Any, within_s: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)
