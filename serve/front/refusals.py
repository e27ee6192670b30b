"""Refusals in the shape that each dialect's clients read, and the dialect of a path."""

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from serve.errors import RequestError
from serve.front.visits import Visit

Shape = Callable[[RequestError], dict[str, Any]]

HOUSE = "house"
"""What belongs to no dialect: health, status, offers, the page. It refuses as OpenAI does."""
PREFIXES = (
    ("/v1/images", "openai"),
    ("/v1/ssd-1b", "segmind"),
    ("/sdapi/", "a1111"),
    ("/v1/predictions", "replicate"),
    ("/v1/files", "replicate"),
    ("/v1/webhooks", "replicate"),
    ("/v1/models/", "replicate"),
    ("/models/", "huggingface"),
)


def dialect_of(path: str) -> str:
    """Return the dialect that a path belongs to; only its clients look there."""
    return next((dialect for prefix, dialect in PREFIXES if path.startswith(prefix)), HOUSE)


def problem(error: RequestError) -> dict[str, Any]:
    """Return Replicate's error object, RFC 9457's problem details."""
    return {"title": error.code or "error", "detail": error.message}


def plain(error: RequestError) -> dict[str, Any]:
    """Return Segmind's and Hugging Face's error object."""
    return {"error": error.message}


def detailed(error: RequestError) -> dict[str, Any]:
    """Return A1111's error object, FastAPI's own."""
    return {"detail": error.message, "error": error.code or "error", "errors": error.param or ""}


SHAPES: dict[str, Shape] = {"segmind": plain, "huggingface": plain, "a1111": detailed, "replicate": problem}
STATUSES = {("segmind", 402): 406, ("replicate", 400): 422}
"""Where a dialect has another status for the same refusal: no credits left, and an input that is not right."""


def refuse(visit: Visit, error: RequestError) -> Response:
    """Return the answer that refuses a request, with when to come back."""
    visit.error = error.code
    status = STATUSES.get((visit.dialect, error.status), error.status)
    headers = {}
    if status in (429, 503):
        headers["retry-after"] = str(max(1, round(getattr(error, "retry_after_s", None) or 1)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    shape = SHAPES.get(visit.dialect, RequestError.body)
    kind = "application/problem+json" if visit.dialect == "replicate" else None
    return JSONResponse(shape(error), status, headers, kind)
