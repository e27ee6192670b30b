"""MLflow's webhook: a signed message that an alias or a version of a model moved.

The registry stays the truth: a message only says that it is worth a look.

The signature is MLflow's: "v1," and the base64 of HMAC-SHA256 over delivery id, timestamp and body, joined by dots
(mlflow.webhooks.delivery).
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response

from serve.errors import RequestError

PATH = "/hooks/mlflow"
AGE_S = 300.0
"""Messages signed longer ago, or so much in the future, are refused: somebody may be sending an old one again."""
BODY_BYTES = 2**20


def check(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Check who sent a message and when; now is in seconds since 1970.

    Raises:
        RequestError: 401, not signed with our secret, or too old.
    """
    stamp, delivery = headers.get("x-mlflow-timestamp", ""), headers.get("x-mlflow-delivery-id", "")
    signed = f"{delivery}.{stamp}.".encode() + body
    expected = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    given = headers.get("x-mlflow-signature", "")
    if not hmac.compare_digest(given.encode(), f"v1,{expected}".encode()):
        raise RequestError("The signature is not ours: give the webhook the secret of SSD1B_WEBHOOK_SECRET",
                           None, "invalid_signature", 401, "authentication_error")  # fmt: skip
    if not stamp.isdecimal() or abs(now - int(stamp)) > AGE_S:
        raise RequestError(f"The timestamp {stamp!r} is not within {AGE_S:.0f} s of this clock", None, "stale", 401,
                           "authentication_error")  # fmt: skip


def hook(secret: str | None, nudge: Callable[[], Awaitable[None]]) -> APIRouter:
    """Return the route. Without a secret it is closed: anybody could make the endpoint ask the registry all day."""
    router = APIRouter()

    @router.post(PATH, include_in_schema=False, status_code=204)
    async def moved(http: Request) -> Response:
        if secret is None:
            raise RequestError("Webhooks are closed: set SSD1B_WEBHOOK_SECRET where the endpoint starts", None,
                               "webhooks_closed", 403)  # fmt: skip
        body = bytearray()
        async for chunk in http.stream():
            body += chunk
            if len(body) > BODY_BYTES:
                raise RequestError(f"The body is larger than {BODY_BYTES} bytes", None, "request_too_large", 413)
        check(secret, http.headers, bytes(body), time.time())
        await nudge()
        return Response(status_code=204)

    return router
