"""Segmind's route: POST /v1/ssd-1b with x-api-key, answered with a JPEG or base64, credits in the headers."""

import datetime
import json

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serve.answer import Generation
from serve.dialects import segmind
from serve.front.bodies import body_of
from serve.front.desk import Desk
from serve.front.documents import ALWAYS, FILE, answers, as_json, drawing, takes
from serve.front.visits import Visit

EXAMPLE = {"prompt": "a red apple", "num_inference_steps": 20, "seed": 1}
STATUSES = tuple(406 if status == 402 else status for status in ALWAYS)


def router(desk: Desk) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["Segmind"])

    @routes.post(
        "/v1/ssd-1b",
        summary="A picture as a JPEG, or pictures in base64",
        responses=answers("segmind", {"image/jpeg": {"schema": FILE}, **as_json()}, STATUSES),
        openapi_extra=drawing(takes(segmind.SsdRequest, EXAMPLE)),
    )
    async def ssd_1b(http: Request) -> Response:
        visit = await desk.welcome(http)
        body = segmind.read(await body_of(http))
        made = await desk.make(http, visit, segmind.to_request(body, visit.spare_seed))
        headers = headers_of(visit, made)
        if body.base64 or body.samples > 1:
            return JSONResponse(segmind.to_json(made), headers=headers)
        return Response(made.pictures[0].data, media_type="image/jpeg", headers=headers)

    return routes


def headers_of(visit: Visit, made: Generation) -> dict[str, str]:
    """Return the headers that Segmind's clients read."""
    told = {"seed": made.pictures[0].seed, "img_width": made.size.width, "img_height": made.size.height}
    headers = {"x-generation-time": f"{visit.seconds:.3f}", "x-output-metadata": json.dumps(told)}
    charge = visit.charge
    if charge is not None and charge.credits_left is not None:
        headers["x-remaining-credits"] = f"{charge.credits_left:g}"
    if charge is not None and charge.remaining is not None:
        headers["x-rate-limit-remaining"] = str(charge.remaining)
    if charge is not None and charge.reset_s is not None:
        reset = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=charge.reset_s)
        headers["x-rate-limit-reset-at-utc"] = reset.isoformat(timespec="seconds")
    return headers
