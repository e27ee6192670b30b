"""The HTTP front: reads a dialect, asks the engine, issues again when a replica dies, answers in the dialect.

`routes` is the whole web app and needs no Ray; `Ingress` is it as a Serve deployment.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from serve.accounts import Accounts, NoAccounts, open_accounts
from serve.answer import Event
from serve.board import board_of
from serve.dialects.a1111 import Img2Img, Txt2Img
from serve.dialects.huggingface import TextToImage
from serve.dialects.openai import ImageRequest
from serve.dialects.openai_edits import EditForm
from serve.dialects.replicate import PredictionBody
from serve.dialects.segmind import SsdRequest
from serve.errors import RequestError
from serve.front import a1111, house, huggingface, openai, replicate, segmind
from serve.front.a1111 import PngInfo
from serve.front.again import Engine, unavailable
from serve.front.desk import Desk
from serve.front.gone import ended
from serve.front.meters import Meters
from serve.front.predictions import Predictions
from serve.front.refusals import dialect_of, refuse
from serve.front.runner import Runner
from serve.front.visits import Visits, visit_of
from serve.front.webhooks import Webhooks
from serve.request import GenerationRequest
from serve.rollout.hook import hook
from serve.styles import Styles, open_styles
from ssd1b.home import home

logger = logging.getLogger("ray.serve")

BOARD_S = 10.0
"""How long all replicas together may take to answer a call to every one of them."""
WEBHOOK_SECRET = "SSD1B_WEBHOOK_SECRET"
"""Names what MLflow signs its webhook with (serve/rollout/hook.py)."""
BODIES = (ImageRequest, EditForm, SsdRequest, Txt2Img, Img2Img, PngInfo, TextToImage, PredictionBody)
"""Of the document."""


@serve.ingress()
class Ingress:
    """The front as a Serve deployment (serve/app.py sets its numbers). Holds no model."""

    def __init__(self, engine: DeploymentHandle[Any], model: str, webhook_hosts: Sequence[str] = ()) -> None:
        self._engine, self._drawing, self._model = engine, engine.options(stream=True), model
        self._webhook_hosts = webhook_hosts

    def __serve_build_asgi_app__(self) -> FastAPI:
        return routes(
            self,
            self._model,
            accounts=open_accounts(),
            styles=open_styles(),
            storage=home() / "predictions.db",
            webhook_hosts=self._webhook_hosts,
            webhook_secret=os.environ.get(WEBHOOK_SECRET),
        )

    def generate(self, request: GenerationRequest) -> Awaitable[Any]:
        response: Awaitable[Any] = self._engine.generate.remote(request)
        return response

    async def draw(self, request: GenerationRequest) -> AsyncIterator[Event]:
        events = self._drawing.draw.remote(request)
        try:
            async for event in events:
                yield event
        finally:
            events.cancel()

    def offer(self) -> Awaitable[Any]:
        response: Awaitable[Any] = self._engine.offer.remote()
        return response

    async def board(self) -> dict[str, Any]:
        """Ask every replica at once; one that dies meanwhile is left out. Where there is none, none is woken."""
        told = await self._all("report")
        return board_of(self._model, [one for one in told if isinstance(one, dict)])

    async def nudge(self) -> None:
        """Tell every replica to look at the registry; one that does not hear it looks by itself, some seconds later."""
        await self._all("look")

    async def _all(self, verb: str) -> list[Any]:
        """Return what the replicas that run say to a verb, or the exceptions of their calls.

        Raises:
            RequestError: 503, one of them keeps silent.
        """
        try:
            answers: list[Any] = await self._engine.broadcast(verb).results_async(
                timeout_s=BOARD_S, return_exceptions=True
            )
        except DeploymentUnavailableError:  # what a broadcast to nobody raises
            return []
        except TimeoutError as error:
            raise unavailable(f"A replica did not say how it is within {BOARD_S:g} s") from error
        return answers


def routes(
    engine: Engine,
    model: str,
    *,
    accounts: Accounts | NoAccounts | None = None,
    styles: Styles | None = None,
    storage: Path | None = None,
    webhook_hosts: Sequence[str] = (),
    webhook_secret: str | None = None,
) -> FastAPI:
    """Return the web app in front of an engine that serves under the name `model`.

    storage: the file that predictions are kept in; None keeps them in memory, and they end with the process.
    webhook_hosts: HOST or HOST:PORT of private networks that webhooks may be sent to.
    webhook_secret: what the registry signs its own webhook with; without it that route is closed.

    Raises:
        ValueError: a webhook host that is none.
    """
    store, meters = Predictions(storage), Meters()
    desk = Desk(engine, model, accounts or NoAccounts(), open_styles() if styles is None else styles, store)
    runner = Runner(desk, store, Webhooks(store.secret(), webhook_hosts), meters)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeper = asyncio.create_task(runner.keep(), name="predictions")
        yield
        await ended(keeper)
        await runner.webhooks.close()
        store.close()
        desk.accounts.close()

    app = FastAPI(
        title=f"ssd1b: {model}",
        description="One engine, five dialects. Send a key as `Authorization: Bearer KEY` or x-api-key.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Visits, dialect_of=dialect_of, refuse=refuse, meters=meters)

    @app.exception_handler(RequestError)
    async def refused(http: Request, error: RequestError) -> Response:
        return refuse(visit_of(http), error)

    @app.exception_handler(sqlite3.Error)
    async def store_away(http: Request, error: sqlite3.Error) -> Response:
        logger.error("%s: what is kept cannot be reached: %s", visit_of(http).id, error)
        return refuse(visit_of(http), unavailable("What is kept for you cannot be reached: try again soon"))

    @app.exception_handler(HTTPException)
    async def no_route(http: Request, error: HTTPException) -> Response:
        answer = refuse(visit_of(http), house.no_route(http, error))
        if error.status_code == 405:
            answer.headers["allow"] = ", ".join(house.methods(routers, http))
        return answer

    routers = [routed.router(desk) for routed in (openai, segmind, a1111, huggingface)]
    routers += [replicate.router(desk, store, runner), hook(webhook_secret, engine.nudge)]
    routers += [house.router(desk, app, BODIES)]
    for router in routers:
        app.include_router(router)
    app.router.default = house.Fallback()
    return app
