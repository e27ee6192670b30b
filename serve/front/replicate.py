"""Replicate's routes: predictions, their streams, the model, files, the secret that webhooks are signed with."""

import asyncio
import dataclasses
import json
import re
import secrets
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serve.dialects import replicate
from serve.errors import RequestError
from serve.front.bodies import FORM_BYTES, PICTURE_JSON_BYTES, body_of, form_of, only
from serve.front.desk import Desk
from serve.front.documents import ALWAYS, FILE, STREAM, answers, as_json, drawing, takes, takes_form
from serve.front.gone import EventStream, sse, until_gone
from serve.front.links import file_url, is_done, present, start_of
from serve.front.once import digest_of
from serve.front.predictions import KEPT_S, SENT, File, Predictions, State
from serve.front.runner import LOOK_S, Runner, now
from serve.front.visits import Visit
from serve.offer import Offer

EXAMPLE = {"input": {"prompt": "a red apple", "num_inference_steps": 20, "seed": 1}}
WAIT = re.compile(r"\bwait(?:\s*=\s*(?P<s>\d{1,4}))?\b")
WAIT_S = 60
"""How long Prefer: wait waits at most, and if it names no time."""
CONTENT = {"type": "object", "required": ["content"], "properties": {"content": FILE}, "additionalProperties": False}
REFUSED = (401, 404, 500, 503)
CREATED = (*(422 if status == 400 else status for status in ALWAYS), 404)


def router(desk: Desk, store: Predictions, runner: Runner) -> APIRouter:
    """Return the routes under /v1/predictions, /v1/models/{owner}, /v1/files and /v1/webhooks."""
    routes = APIRouter(prefix="/v1", tags=["Replicate"])
    body = drawing(takes(replicate.PredictionBody, EXAMPLE))
    prediction = as_json({"type": "object", "required": ["id", "status", "urls", "input"]})
    told, known = answers("replicate", prediction, REFUSED), answers("replicate", as_json(), REFUSED)
    made = answers("replicate", prediction, CREATED, 201, "Begun, or done.")

    @routes.post("/predictions", status_code=201, summary="Begin a prediction", responses=made, openapi_extra=body)
    async def create(http: Request) -> Response:
        return await begun(desk, store, runner, http)

    @routes.get(
        "/predictions",
        summary="Your predictions, the newest first",
        responses=known,
    )
    async def list_predictions(http: Request, cursor: str | None = None) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        states, after = await asyncio.to_thread(store.page, account, from_cursor(cursor))
        base = base_of(http)
        results = [await asyncio.to_thread(present, state | {"output": None}, store, base) for state in states]
        following = None if after is None else f"{base}/v1/predictions?cursor={after!r}"
        return {"previous": None, "next": following, "results": results}

    @routes.get("/predictions/{id}", summary="How far a prediction is", responses=told)
    async def get(http: Request, id: str) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        return await asyncio.to_thread(present, await found(store, id, account), store, base_of(http))

    @routes.post("/predictions/{id}/cancel", summary="End a prediction within one step", responses=told)
    async def cancel(http: Request, id: str) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        await found(store, id, account)
        await runner.cancel(id)
        return await asyncio.to_thread(present, await found(store, id, account), store, base_of(http))

    @routes.get(
        "/predictions/{id}/stream",
        summary="A prediction as server-sent events: logs, output, done",
        responses=answers("replicate", STREAM, REFUSED),
    )
    async def stream(http: Request, id: str) -> Response:
        account = (await desk.welcome(http)).account
        await found(store, id, account)
        return EventStream(events(store, id, base_of(http)))

    @routes.get("/models/{owner}/{name}", summary="The model", responses=known)
    async def model(http: Request, owner: str, name: str) -> dict[str, Any]:  # noqa: ARG001
        offer = await offered(desk, await desk.welcome(http), name)
        return replicate.to_model(offer, f"{base_of(http)}/", since(offer))

    @routes.get(
        "/models/{owner}/{name}/versions", summary="Its version", responses=answers("replicate", as_json(), REFUSED)
    )
    async def versions(http: Request, owner: str, name: str) -> dict[str, Any]:  # noqa: ARG001
        offer = await offered(desk, await desk.welcome(http), name)
        return {"previous": None, "next": None, "results": [replicate.to_version(offer, since(offer))]}

    @routes.get(
        "/models/{owner}/{name}/versions/{id}",
        summary="Its version, by id",
        responses=answers("replicate", as_json(), (*REFUSED, 422)),
    )
    async def version(http: Request, owner: str, name: str, id: str) -> dict[str, Any]:  # noqa: ARG001
        offer = await offered(desk, await desk.welcome(http), name)
        replicate.require_version(id, offer)
        return replicate.to_version(offer, since(offer))

    @routes.post(
        "/models/{owner}/{name}/predictions",
        status_code=201,
        summary="Begin a prediction by the model's name",
        responses=made,
        openapi_extra=body,
    )
    async def create_by_name(http: Request, owner: str, name: str) -> Response:  # noqa: ARG001
        return await begun(desk, store, runner, http, name)

    @routes.get(
        "/webhooks/default/secret",
        summary="The secret your webhooks are signed with",
        responses=answers("replicate", as_json(), REFUSED),
    )
    async def secret(http: Request) -> dict[str, str]:
        return {"key": runner.webhooks.secret_of((await desk.welcome(http)).account)}

    @routes.post(
        "/files",
        status_code=201,
        summary="Send a picture, to start predictions from for an hour",
        responses=answers("replicate", as_json(), (*CREATED, 415), 201, "Kept."),
        openapi_extra=takes_form(CONTENT),
    )
    async def send_file(http: Request) -> Response:
        account = (await desk.welcome(http)).account
        fields, files = await form_of(http, FORM_BYTES)
        if unknown := sorted({name for name, _ in fields} | set(files) - {"content"}):
            raise RequestError(f"'{unknown[0]}' is not kept here: send content alone", unknown[0], "unknown_parameter")
        content = only(files.get("content", ()), "content")
        kept = await asyncio.to_thread(store.keep_file, account, SENT, kind_of(content), content)
        return JSONResponse(to_file(kept, base_of(http)), 201)

    @routes.get(
        "/files", summary="What you sent and what was made for you", responses=answers("replicate", as_json(), REFUSED)
    )
    async def files(http: Request) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        kept = await asyncio.to_thread(store.files, account)
        return {"previous": None, "next": None, "results": [to_file(one, base_of(http)) for one in kept]}

    @routes.get("/files/{id}", summary="About a file", responses=known)
    async def file(http: Request, id: str) -> dict[str, Any]:
        account = (await desk.welcome(http)).account
        kept = await kept_file(store, id, account)
        return to_file(kept, base_of(http))

    @routes.delete(
        "/files/{id}", status_code=204, summary="Forget a file", responses=answers("replicate", {}, REFUSED, 204)
    )
    async def forget(http: Request, id: str) -> Response:
        account = (await desk.welcome(http)).account
        await kept_file(store, id, account)
        await asyncio.to_thread(store.drop_file, id, account)
        return Response(status_code=204)

    @routes.get(
        "/files/{id}/download",
        summary="A file's bytes; whoever knows its id may read it",
        responses=answers(
            "replicate", {kind: {"schema": FILE} for kind in (*KINDS.values(), "application/octet-stream")}, (404, 500)
        ),
    )
    async def download(id: str) -> Response:
        kept = await kept_file(store, id, None)
        headers = {"cache-control": f"private, max-age={KEPT_S:.0f}", "content-disposition": "attachment"}
        return Response(kept.data, media_type=kept.type, headers=headers)

    return routes


async def begun(desk: Desk, store: Predictions, runner: Runner, http: Request, name: str | None = None) -> Response:
    """Keep a prediction, begin it, wait for it if asked to, and tell how it is."""
    visit = await desk.welcome(http)
    account = visit.account
    body = replicate.read(await body_of(http, PICTURE_JSON_BYTES))
    offer = await offered(desk, visit, name)
    replicate.require_version(body.version, offer)
    told = replicate.with_seed(body.input, visit.spare_seed)
    # What is wrong with the input is said at once rather than by a prediction that failed.
    start = await asyncio.to_thread(start_of, told, store, account)
    request = replicate.to_request(told, start)
    await desk.adapters_offered(visit, await desk.ready(visit, request))
    state = to_state(told, offer, visit, base_of(http))
    state["run"]["webhooks"] = replicate.webhooks(body)
    if visit.key is not None:
        state["id"] = await asyncio.to_thread(store.first, visit.key, digest_of(request), state["id"])
    if await asyncio.to_thread(store.add, account, state, runner.name):
        runner.begin(state["id"])
    else:
        state = await found(store, state["id"], account)
    if (patience_s := patience(http.headers.get("prefer", ""))) is not None:
        await until_gone(http, runner.done(state["id"], patience_s))
        state = await found(store, state["id"], account)
        if state["status"] == "processing":
            state["status"] = "starting"  # the client takes anything else that comes back for the end
    return JSONResponse(await asyncio.to_thread(present, state, store, base_of(http)), 201)


def to_state(told: replicate.Input, offer: Offer, visit: Visit, base: str) -> State:
    """Return a new prediction."""
    assert visit.caller is not None, "welcome comes first"
    return {
        "id": secrets.token_hex(13),
        "model": f"{replicate.OWNER}/{offer.model}",
        "version": offer.version,
        "input": told.model_dump(exclude_unset=True) | {"seed": told.seed},
        "output": None,
        "logs": "",
        "error": None,
        "status": "starting",
        "metrics": {},
        "created_at": now(),
        "started_at": None,
        "completed_at": None,
        "run": {"account": visit.account, "caller": dataclasses.asdict(visit.caller), "base": base},
    }


async def events(store: Predictions, id: str, base: str) -> AsyncGenerator[str, None]:
    """Yield what is new of a prediction, wherever it runs, until it is done."""
    number, told = 0, 0
    while True:
        state = await asyncio.to_thread(store.get, id)
        if state is None:
            return
        if len(state["logs"]) > told:
            number += 1
            yield sse(state["logs"][told:].removesuffix("\n"), "logs", number)
            told = len(state["logs"])
        if is_done(state):
            break
        await asyncio.sleep(LOOK_S)
    shown = await asyncio.to_thread(present, state, store, base)
    for url in shown["output"] or ():
        number += 1
        yield sse(url, "output", number)
    number += 1
    if state["status"] == "failed":
        yield sse(state["error"], "error", number)
    else:
        yield sse(json.dumps({"reason": "canceled"} if state["status"] == "canceled" else {}), "done", number)


async def found(store: Predictions, id: str, account: str) -> State:
    state = await asyncio.to_thread(store.get, id, account)
    if state is None:
        raise RequestError(f"You have no prediction '{id}'; what is done is kept for an hour", "id", "not_found", 404)
    return state


async def kept_file(store: Predictions, id: str, account: str | None) -> File:
    kept = await asyncio.to_thread(store.file, id, account)
    if kept is None:
        raise RequestError(f"There is no file '{id}' of yours; files are kept for an hour", "id", "not_found", 404)
    return kept


async def offered(desk: Desk, visit: Visit, name: str | None) -> Offer:
    """Return the offer, of the model of this name."""
    offer = await desk.offer(visit.id)
    if name is not None and name != offer.model:
        raise RequestError(
            f"There is no model '{name}' here: this endpoint serves {replicate.OWNER}/{offer.model}",
            "name",
            "model_not_found",
            404,
        )
    return offer


def to_file(kept: File, base: str) -> dict[str, Any]:
    """Return Replicate's file object."""
    return {
        "id": kept.id,
        "name": kept.name,
        "content_type": kept.type,
        "size": kept.size,
        "etag": kept.id,
        "checksums": {},
        "metadata": {},
        "created_at": stamp(kept.created),
        "expires_at": stamp(kept.created + KEPT_S),
        "urls": {"get": file_url(base, kept.id)},
    }


BYTES = "application/octet-stream"
KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def kind_of(content: bytes) -> str:
    """Return the type of a picture file by its first bytes; of any other, one that no browser shows as a page."""
    return next((kind for magic, kind in KINDS.items() if content.startswith(magic)), BYTES)


def patience(prefer: str) -> float | None:
    """Return the seconds that a Prefer header asks to wait, None if it does not."""
    match = WAIT.search(prefer)
    return None if match is None else min(float(match["s"] or WAIT_S), WAIT_S)


def from_cursor(cursor: str | None) -> float | None:
    try:
        return None if cursor is None else float(cursor)
    except ValueError as error:
        raise RequestError(f"cursor '{cursor}' is none that was given out here", "cursor", "not_found", 404) from error


def base_of(http: Request) -> str:
    return str(http.base_url).rstrip("/")


def since(offer: Offer) -> str:
    return stamp(offer.created)


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
