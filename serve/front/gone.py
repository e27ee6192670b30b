"""Clients that go away: what was begun for them ends, so that the engine draws for those who still wait."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Send

from serve.errors import RequestError

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that did not wait; it reaches the log only."""
QUIET_S = 15.0
"""After so long without an event a comment goes out, so that no proxy takes the stream for dead."""

Answer = TypeVar("Answer")


async def until_gone(http: Request, work: Awaitable[Answer]) -> Answer:
    """Await the work, or cancel it when the client hangs up. The request's body must have been read.

    Raises:
        RequestError: the client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up(http.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("The client has gone", None, "client_gone", CLIENT_CLOSED_REQUEST)
        return task.result()
    finally:
        await ended(task, gone)


async def hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def ended(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel the tasks and wait until they have ended, whatever with: their outcome was looked at before."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def sse(data: str, event: str | None = None, number: int | None = None) -> str:
    """Return one server-sent event (HTML standard, 9.2)."""
    head = "" if number is None else f"id: {number}\n"
    head += "" if event is None else f"event: {event}\n"
    return head + "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"


class EventStream(StreamingResponse):
    """Server-sent events. The generator of the events is closed in the moment the client hangs up."""

    def __init__(self, events: AsyncGenerator[str, None], headers: Mapping[str, str] | None = None) -> None:
        self._events = events
        super().__init__(events, 200, {"cache-control": "no-store", **(headers or {})}, "text/event-stream")

    async def stream_response(self, send: Send) -> None:
        async with aclosing(awake(self._events)) as chunks:
            self.body_iterator = chunks
            await super().stream_response(send)


async def awake(events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """Yield the events, and a comment whenever there was none for a while."""
    async with aclosing(events):
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            try:
                while not (await asyncio.wait((coming,), timeout=QUIET_S))[0]:
                    yield ": waiting\n\n"
            finally:
                if not coming.done():
                    coming.cancel()
                    with suppress(asyncio.CancelledError):
                        await coming
            event = coming.result()
            if event is None:
                return
            yield event
