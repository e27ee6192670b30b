"""OpenAI's routes: pictures from a prompt, pictures from a picture, and what there is."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serve.accounts import Charge
from serve.answer import Generation, Preview
from serve.dialects import openai, openai_edits
from serve.errors import RequestError
from serve.front.bodies import body_of, form_of
from serve.front.desk import Desk
from serve.front.documents import ALWAYS, REF, STREAM, answers, as_json, drawing, takes, takes_form
from serve.front.gone import EventStream, sse, until_gone
from serve.front.visits import Visit
from serve.request import GenerationRequest

EXAMPLE = {"prompt": "a red apple, flat vector style", "seed": 1}
IMAGES = as_json({"type": "object", "required": ["created", "data"], "properties": {"data": {"type": "array"}}})


def router(desk: Desk) -> APIRouter:
    """Return the routes under /v1/images."""
    routes = APIRouter(tags=["OpenAI Images"])

    @routes.post(
        "/v1/images/generations",
        summary="Pictures from a prompt",
        responses=answers("openai", {**IMAGES, **STREAM}, (*ALWAYS, 404)),
        openapi_extra=drawing(takes(openai.ImageRequest, EXAMPLE)),
    )
    async def generations(http: Request) -> Response:
        visit = await desk.welcome(http)
        image = openai.read(await body_of(http))
        request = openai.to_request(image, desk.model, style=image.style, spare=visit.spare_seed)
        return await answered(desk, http, visit, image, request, "image_generation")

    @routes.post(
        "/v1/images/edits",
        summary="Pictures from a picture, or anew where a mask is transparent",
        responses=answers("openai", {**IMAGES, **STREAM}, (*ALWAYS, 404, 415)),
        openapi_extra=drawing(takes_form({"$ref": REF.format(model=openai_edits.EditForm.__name__)})),
    )
    async def edits(http: Request) -> Response:
        visit = await desk.welcome(http)
        fields, files = await form_of(http)
        edit = openai_edits.read(fields)
        start = await asyncio.to_thread(openai_edits.start_of, edit, files)
        request = openai.to_request(edit, desk.model, style=edit.style, start=start, spare=visit.spare_seed)
        return await answered(desk, http, visit, edit, request, "image_edit")

    @routes.post(
        "/v1/images/variations",
        summary="Refused: this model reads prompts, not pictures",
        include_in_schema=False,
    )
    async def variations(http: Request) -> Response:
        await desk.welcome(http)
        raise RequestError(
            "Variations are not offered: the model is conditioned on text, so that a picture without a prompt says "
            "nothing to it. Use /v1/images/edits with a prompt and a strength of 0.3 to 0.6",
            None,
            "unsupported_endpoint",
        )

    return routes


async def answered(
    desk: Desk, http: Request, visit: Visit, image: openai.Drawing, request: GenerationRequest, kind: openai.Kind
) -> Response:
    """Answer at once, or as server-sent events. What is refused before the first event has its HTTP status."""
    if not image.stream:
        made = await desk.make(http, visit, request)
        return JSONResponse(openai.to_response(image, made, int(time.time())), headers=headers_of(visit.charge))
    events = told(desk, visit, image, request, kind)
    first = await until_gone(http, anext(events))

    async def all_events() -> AsyncGenerator[str, None]:
        async with aclosing(events):
            yield first
            async for event in events:
                yield event

    return EventStream(all_events(), headers_of(visit.charge))


async def told(
    desk: Desk, visit: Visit, image: openai.Drawing, request: GenerationRequest, kind: openai.Kind
) -> AsyncGenerator[str, None]:
    """Yield the events of a request as text; a refusal before the first of them is raised, a later one is told."""
    begun = False
    created = int(time.time())
    try:
        async with aclosing(desk.draw(visit, request)) as events:
            async for event in events:
                if isinstance(event, Preview):
                    assert visit.size is not None, "the desk chose it before anything was drawn"
                    yield named(openai.partial_event(kind, image, event, visit.size, created))
                    begun = True
                elif isinstance(event, Generation):
                    for completed in openai.completed_events(kind, image, event, created):
                        yield named(completed)
                        begun = True
                elif not begun:
                    begun = True
                    yield ": drawing\n\n"
    except RequestError as error:
        if not begun:
            raise
        visit.error = error.code
        yield named({"type": "error", **error.body()})


def named(event: dict[str, Any]) -> str:
    return sse(json.dumps(event), event["type"])


def headers_of(charge: Charge | None) -> dict[str, str]:
    """Return OpenAI's rate-limit headers, where the account has such a limit."""
    if charge is None or charge.limit is None:
        return {}
    headers = {"x-ratelimit-limit-requests": str(charge.limit)}
    if charge.remaining is not None:
        headers["x-ratelimit-remaining-requests"] = str(charge.remaining)
    if charge.reset_s is not None:
        headers["x-ratelimit-reset-requests"] = f"{charge.reset_s:.3f}s"
    return headers
