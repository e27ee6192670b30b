"""A1111's routes: txt2img, img2img, how far they are, how to stop them, and what there is."""

import asyncio
import base64
import time
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from serve.answer import Generation, Preview, Progress
from serve.dialects import a1111
from serve.dialects.body import PICTURE, PICTURE_CHARACTERS, Body, checked, fields_of, picture_of
from serve.errors import RequestError
from serve.front.bodies import PICTURE_JSON_BYTES, body_of
from serve.front.desk import Desk
from serve.front.documents import ALWAYS, answers, as_json, drawing, takes
from serve.front.gone import ended, until_gone
from serve.front.tasks import Task, Tasks, interrupted
from serve.front.visits import Visit
from serve.pictures import Parameters, parameters_of
from serve.request import GenerationRequest

EXAMPLE = {"prompt": "a red apple", "steps": 20, "seed": 1, "sampler_name": "Euler"}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""The smallest picture, for the document's example."""


class PngInfo(Body):
    """Body of POST /sdapi/v1/png-info."""

    image: str = Field(min_length=1, max_length=PICTURE_CHARACTERS, json_schema_extra={**PICTURE})
    """A picture in base64 or as a data: URI."""


def router(desk: Desk) -> APIRouter:
    """Return the routes under /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
    tasks = Tasks()
    made = as_json({"type": "object", "required": ["images", "parameters", "info"]})
    drawn, told = answers("a1111", made, (*ALWAYS, 409)), answers("a1111", as_json(), (401, 500, 503))
    listed = answers("a1111", as_json({"type": "array", "items": {"type": "object"}}), (401, 500, 503))

    @routes.post(
        "/txt2img",
        summary="Pictures from a prompt",
        responses=drawn,
        openapi_extra=drawing(takes(a1111.Txt2Img, EXAMPLE)),
    )
    async def txt2img(http: Request) -> Response:
        visit = await desk.welcome(http)
        body = a1111.read(await body_of(http), a1111.Txt2Img)
        return await answered(desk, tasks, http, visit, body, a1111.to_request(body, spare=visit.spare_seed))

    @routes.post(
        "/img2img",
        summary="Pictures from a picture",
        responses=drawn,
        openapi_extra=drawing(takes(a1111.Img2Img, {**EXAMPLE, "init_images": [DOT]})),
    )
    async def img2img(http: Request) -> Response:
        visit = await desk.welcome(http)
        body = a1111.read(await body_of(http, PICTURE_JSON_BYTES), a1111.Img2Img)
        assert isinstance(body, a1111.Img2Img)
        start = await asyncio.to_thread(a1111.start_of, body)
        return await answered(desk, tasks, http, visit, body, a1111.to_request(body, start, visit.spare_seed))

    @routes.get("/progress", summary="How far a request of yours is", responses=told)
    async def progress(http: Request, task_id: str | None = None) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        return progress_of(tasks.find(account, task_id), tasks.of(account))

    @routes.post(
        "/interrupt",
        summary="Stop a request of yours within one step",
        responses=answers("a1111", as_json(), (401, 404, 409, 500, 503)),
    )
    async def interrupt(http: Request, task_id: str | None = None) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        if task_id is None and tasks.of(account) > 1:
            raise RequestError(
                f"{tasks.of(account)} requests of yours run: say which by /sdapi/v1/interrupt?task_id=<force_task_id>",
                "task_id",
                "conflict",
                409,
            )
        task = tasks.find(account, task_id)
        if task_id is not None and task is None:
            raise RequestError(f"No request of yours named '{task_id}' runs", "task_id", "not_found", 404)
        if task is not None:
            task.interrupted.set()
        return {}

    @routes.get("/samplers", summary="Samplers by A1111's names", responses=listed)
    async def samplers(http: Request) -> list[dict[str, Any]]:
        visit = await desk.welcome(http)
        offered = (await desk.offer(visit.id)).samplers
        return [one for one in a1111.samplers() if one["aliases"][0] in offered]

    @routes.get("/schedulers", summary="Noise levels", responses=listed)
    async def schedulers(http: Request) -> list[dict[str, Any]]:
        await desk.welcome(http)
        return a1111.schedulers()

    @routes.get("/sd-models", summary="The model", responses=listed)
    async def sd_models(http: Request) -> list[dict[str, Any]]:
        visit = await desk.welcome(http)
        offer = await desk.offer(visit.id)
        unknown = {"hash": None, "sha256": None, "filename": "", "config": None}
        return [{"title": f"{offer.model} [{offer.version}]", "model_name": offer.model, **unknown}]

    @routes.get("/loras", summary="Adapters", responses=listed)
    async def loras(http: Request) -> list[dict[str, Any]]:
        offer = await desk.offer((await desk.welcome(http)).id)
        return [{"name": name, "alias": name, "path": "", "metadata": {}} for name in offer.loras]

    @routes.get("/prompt-styles", summary="Presets", responses=listed)
    async def prompt_styles(http: Request) -> list[dict[str, Any]]:
        await desk.welcome(http)
        return [
            {"name": one.name, "prompt": one.prompt, "negative_prompt": one.negative_prompt}
            for one in desk.styles.values()
        ]

    @routes.get("/options", summary="The settings that clients look for", responses=told)
    async def options(http: Request) -> dict[str, Any]:
        visit = await desk.welcome(http)
        offer = await desk.offer(visit.id)
        return {"sd_model_checkpoint": f"{offer.model} [{offer.version}]", "samples_format": "png"}

    @routes.post(
        "/png-info",
        summary="What a picture says of how it was made",
        responses=answers("a1111", as_json(), (400, 401, 408, 413, 500, 503)),
        openapi_extra=takes(PngInfo, {"image": DOT}),
    )
    async def png_info(http: Request) -> dict[str, Any]:
        await desk.welcome(http)
        body = checked(PngInfo, fields_of(await body_of(http, PICTURE_JSON_BYTES)))
        data = picture_of(body.image, "image")
        told = await asyncio.to_thread(parameters_in, data)
        if told is None:
            return {"info": "", "items": {}, "parameters": {}}
        fields = {"Prompt": told.prompt, "Negative prompt": told.negative_prompt, **told.settings}
        return {"info": str(told), "items": {"parameters": str(told)}, "parameters": fields}

    return routes


async def answered(
    desk: Desk, tasks: Tasks, http: Request, visit: Visit, body: a1111.Txt2Img, request: GenerationRequest
) -> Response:
    with tasks.running(visit.account, body.force_task_id) as task:
        made = await until_gone(http, until_interrupted(desk, visit, request, task))
    files = [picture.data for picture in made.pictures]
    told = [await asyncio.to_thread(parameters_in, data) for data in files]
    infotexts = [str(parameters or "") for parameters in told]
    fields = body.model_dump(exclude={"init_images", "mask"})
    return JSONResponse(
        {
            "images": [base64.b64encode(data).decode() for data in files],
            "parameters": fields,
            "info": a1111.info(body, request, made, infotexts),
        }
    )


async def until_interrupted(desk: Desk, visit: Visit, request: GenerationRequest, task: Task) -> Generation:
    """Return the pictures.

    Raises:
        RequestError: the engine's, or that the task was interrupted.
    """
    work = asyncio.ensure_future(watched(desk, visit, request, task))
    stop = asyncio.ensure_future(task.interrupted.wait())
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise interrupted()
        return work.result()
    finally:
        await ended(work, stop)


async def watched(desk: Desk, visit: Visit, request: GenerationRequest, task: Task) -> Generation:
    """Return the pictures, and tell the task how far they are meanwhile."""
    made: Generation | None = None
    async with aclosing(desk.draw(visit, request)) as events:
        async for event in events:
            if isinstance(event, Progress):
                task.made, task.of = event.made, event.of
            elif isinstance(event, Preview):
                task.preview = event.data
            else:
                made = event
    assert made is not None, "the desk ends with pictures or raises"
    return made


def progress_of(task: Task | None, count: int) -> dict[str, Any]:
    """Return the answer of GET /sdapi/v1/progress; zeros while nothing runs."""
    told = task or Task()
    passed = asyncio.get_running_loop().time() - told.started
    return {
        "progress": told.progress,
        "eta_relative": passed / told.progress - passed if told.progress else 0.0,
        "state": state_of(count, told.made, told.of),
        "current_image": base64.b64encode(told.preview).decode() if told.preview else None,
        "textinfo": None,
    }


def state_of(count: int, made: int, of: int) -> dict[str, Any]:
    stamp = time.strftime("%Y%m%d%H%M%S")
    return {
        "job_count": count,
        "job_no": 0,
        "sampling_step": made,
        "sampling_steps": of,
        "skipped": False,
        "interrupted": False,
        "job_timestamp": stamp,
    }


def parameters_in(data: bytes) -> Parameters | None:
    """Return what a picture says of how it was made, None if nothing.

    Raises:
        RequestError: no picture.
    """
    try:
        return parameters_of(data)
    except ValueError as error:
        raise RequestError(f"image: {error}", "image", "invalid_image") from error
