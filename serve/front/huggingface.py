"""Hugging Face's routes: POST /models/{model}, and POST / for a client that was given this endpoint's address."""

from fastapi import APIRouter, Request, Response

from serve.dialects import huggingface
from serve.errors import RequestError
from serve.front.bodies import body_of
from serve.front.desk import Desk
from serve.front.documents import ALWAYS, answers, as_pictures, drawing, takes
from serve.front.visits import visit_of

EXAMPLE = {"inputs": "a red apple", "parameters": {"num_inference_steps": 20, "seed": 1}}


def router(desk: Desk) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["Hugging Face"])
    said = answers("huggingface", as_pictures(), (*ALWAYS, 404, 406))
    takes_it = drawing(takes(huggingface.TextToImage, EXAMPLE))

    async def drawn(http: Request) -> Response:
        visit = await desk.welcome(http)
        output_format = huggingface.format_of(http.headers.get("accept", ""))
        body = huggingface.read(await body_of(http))
        request = huggingface.to_request(body, output_format, visit.spare_seed)
        made = await desk.make(http, visit, request)
        headers = {"x-seed": str(made.pictures[0].seed)}
        return Response(made.pictures[0].data, media_type=f"image/{output_format}", headers=headers)

    @routes.post("/", summary="A picture from a prompt", responses=said, openapi_extra=takes_it)
    async def here(http: Request) -> Response:
        visit_of(http).dialect = "huggingface"
        return await drawn(http)

    @routes.post(
        "/models/{model:path}", summary="A picture by the model of this name", responses=said, openapi_extra=takes_it
    )
    async def by_name(http: Request, model: str) -> Response:
        if model != desk.model and model.rpartition("/")[2] != desk.model:
            raise RequestError(
                f"The model '{model[:100]}' does not exist; this endpoint serves '{desk.model}'",
                "model",
                "model_not_found",
                404,
            )
        return await drawn(http)

    return routes
