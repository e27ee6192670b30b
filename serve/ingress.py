"""The HTTP front: reads a dialect, asks the engine, issues again when a replica dies, answers in the dialect."""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from serve.answer import Generation
from serve.dialects import openai
from serve.errors import RequestError
from serve.offer import Offer
from serve.request import GenerationRequest

logger = logging.getLogger("ray.serve")

DIED = (RayActorError, ReplicaUnavailableError)
"""What a call raises when its replica has died, or is leaving."""
ATTEMPTS = 4
"""How often one request is issued at most. A request that kills every replica it meets ends here."""
BODY_BYTES = 2**20


class Engine(Protocol):
    """The calls the front makes."""

    def generate(self, request: GenerationRequest) -> Awaitable[Generation | RequestError]: ...

    def offer(self) -> Awaitable[Offer]: ...


@serve.ingress()
class Ingress:
    """The front as a Serve deployment (serve/app.py sets its numbers). Holds no model."""

    def __init__(self, engine: DeploymentHandle[Any], model: str) -> None:
        self._engine, self._model = engine, model

    def __serve_build_asgi_app__(self) -> FastAPI:
        return routes(self, self._model)

    def generate(self, request: GenerationRequest) -> Awaitable[Any]:
        response: Awaitable[Any] = self._engine.generate.remote(request)
        return response

    def offer(self) -> Awaitable[Any]:
        response: Awaitable[Any] = self._engine.offer.remote()
        return response


def routes(engine: Engine, model: str) -> FastAPI:
    """Return the web app in front of an engine that serves under the name `model`."""
    app = FastAPI(title="ssd1b", openapi_url=None)

    @app.middleware("http")
    async def stamp(http: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Give every response OpenAI's two headers, and what went wrong unforeseen its error shape."""
        started = time.monotonic()
        http.state.id = f"req_{secrets.token_hex(16)}"
        try:
            response = await call_next(http)
        except Exception:
            logger.exception("%s failed", http.state.id)
            message = f"The server failed on this request; its log names {http.state.id}"
            error = RequestError(message, None, "server_error", 500, "server_error")
            response = JSONResponse(error.body(), error.status)
        response.headers["x-request-id"] = http.state.id
        response.headers["openai-processing-ms"] = str(round((time.monotonic() - started) * 1000))
        return response

    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return JSONResponse(error.body(), error.status, {"retry-after": "1"} if error.status in (429, 503) else None)

    @app.exception_handler(HTTPException)
    async def no_route(http: Request, error: HTTPException) -> Response:
        message = f"{error.detail}: {http.method} {http.url.path}; offered: POST /v1/images/generations, GET /v1/models"
        code = "unknown_url" if error.status_code == 404 else "method_not_allowed"
        return JSONResponse(RequestError(message, None, code).body(), error.status_code, error.headers)

    @app.post("/v1/images/generations")
    async def generations(http: Request) -> Response:
        image = openai.read(await body_of(http))
        request = openai.to_request(image, model)
        answer = await again(lambda: engine.generate(request), http.state.id)
        if isinstance(answer, RequestError):
            raise answer
        logger.info("%s: %d picture(s) by %s", http.state.id, request.n, answer.replica)
        return JSONResponse(openai.to_response(image, answer, int(time.time())))

    @app.get("/v1/models")
    async def models(http: Request) -> Response:
        return JSONResponse(openai.to_models(await again(engine.offer, http.state.id)))

    @app.get("/healthz")
    async def healthz() -> Response:
        """The front answers. Serve itself watches the engines; /v1/models asks one."""
        return JSONResponse({"status": "ok"})

    return app


async def body_of(http: Request) -> bytes:
    """Return the body, refusing one longer than any request needs."""
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise RequestError(f"The body is larger than {BODY_BYTES} bytes", None, "request_too_large", 413)
    return bytes(body)


async def again(call: Callable[[], Awaitable[Any]], request_id: str) -> Any:
    """Await the call; issue it again when its replica dies, since equal requests give equal pictures.

    Raises:
        RequestError: 429 when the queue is full, 503 when every attempt lost its replica or there is none.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await call()
        except DIED as error:
            logger.warning("%s: attempt %d of %d lost its replica: %s", request_id, attempt, ATTEMPTS, error)
        except BackPressureError as error:
            raise RequestError(
                "Too many requests wait: try again soon", None, "rate_limit_exceeded", 429, "requests"
            ) from error
        except DeploymentUnavailableError as error:
            raise unavailable("The model is not being served: its deployment failed") from error
    raise unavailable(f"The replica died {ATTEMPTS} times while drawing this request")


def unavailable(message: str) -> RequestError:
    return RequestError(message, None, "service_unavailable", 503, "server_error")
