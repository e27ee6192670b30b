"""What belongs to no dialect alone: models, the offer, presets, health, status, the document, the studio page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.dialects import openai, replicate
from serve.dialects.body import STEPS
from serve.errors import RequestError
from serve.front.again import again
from serve.front.desk import Desk
from serve.front.documents import answers, as_json, describe, page
from serve.front.refusals import HOUSE
from serve.front.replicate import base_of, stamp
from serve.front.visits import visit_of

STUDIO = Path(__file__).parents[1] / "studio"
"""The page at /, if it is there."""
EXAMPLE = "a red apple"
"""What a preset is shown around."""
HTML = {"text/html": {"schema": {"type": "string"}}}
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def router(desk: Desk, app: FastAPI, bodies: Sequence[type[BaseModel]]) -> APIRouter:
    """Return the routes; `bodies` go into the document of the app."""
    routes = APIRouter(tags=["House"])
    said, anybody = answers(HOUSE, as_json(), (401, 500, 503)), answers(HOUSE, as_json(), (500, 503))

    @routes.get("/v1/models", summary="The model, and it with each adapter", responses=said)
    async def models(http: Request) -> dict[str, Any]:
        """OpenAI's list in `data`, Replicate's in `results`."""
        visit = await desk.welcome(http)
        visit.dialect = "openai"
        offer = await desk.offer(visit.id, oldest_s=0)  # an adapter that was registered a moment ago is listed
        listed = [replicate.to_model(offer, f"{base_of(http)}/", stamp(offer.created))]
        return {"object": "list", "data": openai.to_models(offer), "previous": None, "next": None, "results": listed}

    @routes.get(
        "/v1/models/{model}",
        summary="A model of the list",
        responses=answers(HOUSE, as_json(), (401, 404, 500, 503)),
    )
    async def model(http: Request, model: str) -> dict[str, Any]:
        visit_of(http).dialect = "openai"
        visit = await desk.welcome(http)
        for one in openai.to_models(await desk.offer(visit.id)):
            if one["id"] == model:
                return one
        raise RequestError(f"The model '{model[:100]}' does not exist", "model", "model_not_found", 404)

    @routes.get("/v1/offer", summary="Sizes, samplers, adapters and steps to choose from", responses=said)
    async def offer(http: Request) -> dict[str, Any]:
        offer = await desk.offer((await desk.welcome(http)).id, oldest_s=0)
        return {
            "model": offer.model,
            "version": offer.version,
            "sizes": [str(size) for size in offer.sizes],
            "samplers": list(offer.samplers),
            "loras": list(offer.loras),
            "steps": {"default": openai.QUALITY_STEPS["medium"], "max": STEPS},
            "prompt_tokens": offer.prompt_tokens,
        }

    @routes.get("/v1/styles", summary="Presets", responses=said)
    async def styles(http: Request) -> dict[str, Any]:
        await desk.welcome(http)
        return {
            "styles": [
                {**asdict(one), "title": one.name[:1].upper() + one.name[1:], "example": one.around(EXAMPLE)}
                for one in desk.styles.values()
            ]
        }

    @routes.get("/status", summary="Replicas, their queues and resident adapters", responses=said)
    async def status(http: Request) -> dict[str, Any]:
        """Where no replica runs it says so, and wakes none."""
        visit = await desk.welcome(http)
        return dict(await again(desk.engine.board, visit.id))

    @routes.get("/healthz", summary="The front answers", responses=answers(HOUSE, as_json(), (500,)))
    async def healthz(http: Request) -> dict[str, str]:
        """Serve itself watches the engines; /v1/models asks one."""
        visit_of(http).quiet = True
        return {"status": "ok"}

    async def document(http: Request) -> dict[str, Any]:
        """Return the document, narrowed to the offer if a replica can say what it offers."""
        try:
            styles = [style.name for style in desk.styles.values()]
            return describe(app, bodies, await desk.offer(visit_of(http).id), styles)
        except RequestError:
            return describe(app, bodies, None)

    @routes.get("/openapi.json", summary="This document", responses=anybody)
    async def openapi(http: Request) -> Response:
        return JSONResponse(await document(http))

    @routes.get(
        "/docs",
        summary="This document as a page",
        responses=answers(HOUSE, HTML, (500, 503)),
    )
    async def docs(http: Request) -> Response:
        return HTMLResponse(page(await document(http)))

    if (STUDIO / "index.html").exists():

        @routes.get("/", summary="The studio page", responses=answers(HOUSE, HTML, (500,)))
        async def studio(http: Request) -> Response:
            visit_of(http).quiet = True
            return FileResponse(STUDIO / "index.html", headers={"content-security-policy": CONTENT_SECURITY_POLICY})

    return routes


class Fallback:
    """What no route answers: a file of the studio page, or the refusal of a path that is not known."""

    def __init__(self) -> None:
        self._files: ASGIApp | None = StaticFiles(directory=STUDIO) if STUDIO.is_dir() else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._files is not None and scope["type"] == "http" and scope["method"] == "GET":
            scope["state"]["visit"].quiet = True
            await self._files(scope, receive, send)
            return
        raise HTTPException(404)


def methods(routers: Sequence[APIRouter], http: Request) -> list[str]:
    """Return the methods that the routes of a path answer together; Starlette's own refusal names those of one."""
    routes = (route for router in routers for route in router.routes if isinstance(route, Route))
    found = (route.methods or set() for route in routes if route.matches(http.scope)[0] is not Match.NONE)
    known = set[str]().union(*found)
    return sorted(known | {"HEAD"} if "GET" in known else known)


def no_route(http: Request, error: HTTPException) -> RequestError:
    """Return the refusal of a path or method that there is not."""
    offered = "POST /v1/images/generations, GET /v1/models; all of them: GET /docs"
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
    return RequestError(
        f"{error.detail}: {http.method} {http.url.path[:200]}; offered: {offered}", None, code, error.status_code
    )
