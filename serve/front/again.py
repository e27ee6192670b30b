"""Asking an engine whose replicas may die: the same call again, since equal requests give equal pictures.

Ray Serve tries another replica only before one has accepted a call. What was accepted is lost with its replica, so that
the front asks again here, also in the middle of a stream: what was told already is not told twice.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar, cast

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve.answer import Event, Generation, Preview, Progress
from serve.errors import RequestError
from serve.offer import Offer
from serve.request import GenerationRequest

logger = logging.getLogger("ray.serve")

DIED = (RayActorError, ReplicaUnavailableError)
"""What a call raises when its replica has died, or is leaving."""
ATTEMPTS = 4
"""How often one request is issued at most. A request that kills every replica it meets ends here."""

Answer = TypeVar("Answer")


class Engine(Protocol):
    """The calls the front makes."""

    def generate(self, request: GenerationRequest) -> Awaitable[Generation | RequestError]: ...

    def draw(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Tell what happens on the way to the pictures. Closing the iterator cancels the request."""

    def offer(self) -> Awaitable[Offer]: ...

    def board(self) -> Awaitable[dict[str, object]]:
        """Return what GET /status shows (serve/board.py)."""

    def nudge(self) -> Awaitable[None]:
        """Say that the registry has changed."""


async def again(call: Callable[[], Awaitable[Answer]], request_id: str) -> Answer:
    """Await the call; issue it again when its replica dies.

    Raises:
        RequestError: 429 when the queue is full, 503 when every attempt lost its replica or there is none.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await call()
        except DIED as error:
            lost(request_id, attempt, error)
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise refusal(error) from error
    raise worn_out()


async def draw_again(call: Callable[[], AsyncIterator[Event]], request_id: str) -> AsyncGenerator[Event, None]:
    """Yield the events of a call that draws; the same failures as `again`, and the call again after a death.

    After a death the new replica begins at the first step: progress is told once it is past what was told before.
    Closing the generator closes the call.
    """
    made, shown = -1, set[tuple[int, int]]()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with aclosing(cast(AsyncGenerator[Event, None], call())) as events:
                async for event in events:
                    if isinstance(event, Generation | RequestError):
                        yield event
                        return
                    if isinstance(event, Progress):
                        if event.made <= made:
                            continue
                        made = event.made
                    if isinstance(event, Preview):
                        if (event.picture, event.index) in shown:
                            continue
                        shown.add((event.picture, event.index))
                    yield event
            raise RuntimeError("the engine's events ended without pictures or a refusal")
        except DIED as error:
            lost(request_id, attempt, error)
        except (BackPressureError, DeploymentUnavailableError) as error:
            raise refusal(error) from error
    raise worn_out()


def lost(request_id: str, attempt: int, error: Exception) -> None:
    logger.warning("%s: attempt %d of %d lost its replica: %s", request_id, attempt, ATTEMPTS, error)


def refusal(error: BackPressureError | DeploymentUnavailableError) -> RequestError:
    if isinstance(error, BackPressureError):
        return RequestError("Too many requests wait: try again soon", None, "rate_limit_exceeded", 429, "requests")
    return unavailable("The model is not being served: its deployment failed")


def worn_out() -> RequestError:
    return unavailable(f"The replica died {ATTEMPTS} times while drawing this request")


def unavailable(message: str) -> RequestError:
    return RequestError(message, None, "service_unavailable", 503, "server_error")
